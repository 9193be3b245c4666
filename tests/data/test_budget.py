"""A budget is never overdrawn, and who wants more than all of it goes alone."""

from __future__ import annotations

import random
import threading
import time

from gpucompute.data.budget import Budget


def test_never_overdrawn_and_nobody_starves() -> None:
    budget, used, most, alone = Budget(100), 0, 0, 0
    mutex = threading.Lock()
    rng = random.Random(1)
    sizes = [rng.choice([0, 1, 10, 60, 99, 100, 5000]) for _ in range(200)]
    left = iter(sizes)

    def work() -> None:
        nonlocal used, most, alone
        while True:
            with mutex:
                size = next(left, None)
            if size is None:
                return
            with budget.take(size):
                with mutex:
                    used += min(size, 100)
                    most = max(most, used)
                    alone += size == 5000 and used == 100
                time.sleep(0.0002)
                with mutex:
                    used -= min(size, 100)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert most <= 100
    assert alone == sizes.count(5000)


def test_given_back_after_an_error() -> None:
    budget = Budget(10)
    for _ in range(3):
        try:
            with budget.take(10):
                raise RuntimeError
        except RuntimeError:
            pass
    with budget.take(10):
        pass
