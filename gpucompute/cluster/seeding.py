"""Where the centres start: k-means++, or rows at random. What is drawn are numbers of rows, never of chunks."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import OptionError
from .fixed import Scales
from .host import Array, choose, locate
from .rows import Rows

Generator = np.random.Generator


def random_rows(rows: Rows, k: int, rng: Generator) -> Array:
    """Return k different rows, drawn with the weights for probabilities.

    Raises
    ------
    OptionError
        Fewer rows have weights above 0.
    """
    weights = rows.weights
    if weights is not None and (some := np.count_nonzero(weights)) < k:
        raise OptionError(
            f"KMeans: sample_weight is above 0 for {some} rows; expected at least n_clusters={k} for init='random': "
            "take fewer clusters or another init"
        )
    share = None if weights is None else weights / weights.sum()
    return rows.take(rng.choice(rows.shape[0], k, replace=False, p=share))


def plus_plus(rows: Rows, k: int, rng: Generator, scales: Scales) -> Array:
    """Return k rows by greedy k-means++ (Arthur and Vassilvitskii, SODA 2007), with scikit-learn's number of trials.

    Each centre is the best of 2 + log(k) rows, drawn with probabilities in proportion to the squared distances to the
    centres that are there. Running sums of distances are whole numbers, so that a draw names the same row for any
    chunks.
    """
    n, weights = rows.shape[0], rows.weights
    first = rng.integers(n) if weights is None else rng.choice(n, p=weights / weights.sum())
    centres = rows.take([int(first)])
    states, totals = rows.advance(choose, None, centres, centres, scales)
    best = 0
    for _ in range(1, k):
        by_block = [scales.distances.whole(total[best]) for total in totals]
        draws = rng.random(2 + int(math.log(k)))
        candidates = _rows_at(rows, states, centres[-1:], by_block, draws, scales)
        states, totals = rows.advance(choose, states, centres[-1:], candidates, scales)
        potentials = [scales.distances.whole(total) for total in np.sum(totals, axis=0)]
        best = potentials.index(min(potentials))
        centres = np.concatenate([centres, candidates[best : best + 1]])
    return centres


def _rows_at(rows: Rows, states: list[Any], chosen: Array, by_block: list[int], draws: Array, scales: Scales) -> Array:
    """Return the rows that lie at these shares, from 0 to 1, of the running sum of distances."""
    sums = list(accumulate(by_block))
    if not sums[-1]:  # every row lies on a centre
        return rows.take([0])
    wanted: dict[int, list[int]] = {}
    for draw in sorted(draws.tolist()):
        threshold = int(draw * 2**53) * sums[-1] >> 53
        number = bisect_right(sums, threshold)
        wanted.setdefault(number, []).append(threshold - (sums[number - 1] if number else 0))
    return np.concatenate([rows.at(number, locate, states, chosen, part, scales) for number, part in wanted.items()])
