"""`KMeans` in memory: against scikit-learn, against slow references, bits over threads, and errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.cluster import KMeans, fixed, host
from gpucompute.cluster.lloyd import Data, Pass
from gpucompute.cluster.rows import rows_of
from gpucompute.memory import ALIGNMENT
from gpucompute.stats.estimator import NotFittedError
from gpucompute.testing.ptx import floats

DTYPES = ("float32", "float64")


@pytest.fixture(name="threads", params=[1, 2])
def threads_fixture(request: pytest.FixtureRequest) -> Iterator[int]:
    before = gp.get_threads()
    gp.set_threads(request.param)
    yield request.param
    gp.set_threads(before)


def blobs(n: int, d: int, k: int, dtype: str = "float32", spread: float = 0.5) -> np.ndarray[Any, Any]:
    """Return rows around k well separated points, the first k of them around different ones."""
    rng = np.random.default_rng(0)
    points = 10 * np.stack(np.unravel_index(np.arange(k), (5,) * 4), 1) + 100
    points = np.concatenate([points, np.zeros((k, max(0, d - 4)))], 1)[:, :d]
    of = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    return (points[of] + rng.normal(0, spread, (n, d))).astype(dtype)


def digest(model: KMeans) -> str:
    labels = np.ascontiguousarray(model.labels_)
    found = (model.cluster_centers_.tobytes(), labels.tobytes(), str((labels.dtype, model.inertia_, model.n_iter_)))
    return hashlib.sha256(b"".join(part if isinstance(part, bytes) else part.encode() for part in found)).hexdigest()


def squared(x: Any, centres: Any) -> np.ndarray[Any, Any]:
    """Return squared distances by their definition: fused multiply-adds in the order of the features."""
    fma = floats.fma32 if x.dtype == np.float32 else floats.fma64  # made of sums and products, and of whole numbers
    total = np.zeros((len(x), len(centres)), x.dtype)
    for j in range(x.shape[1]):
        difference = x[:, j, None] - centres[None, :, j]
        total = fma(difference.ravel(), difference.ravel(), total.ravel()).reshape(total.shape)
    return total


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "k"), [(600, 3, 5), (300, 20, 4), (5, 1, 1), (257, 7, 17), (31, 33, 3)])
def test_distances_and_labels_are_those_of_the_definition(dtype: str, n: int, d: int, k: int, threads: int) -> None:
    x = np.random.default_rng(1).normal(50, 1, (n, d)).astype(dtype)
    centres = x[-k:].copy()
    model = KMeans(k, init=centres).fit(x)
    model.cluster_centers_ = centres
    expected = squared(x, centres)
    np.testing.assert_array_equal(model.transform(x), np.sqrt(expected))
    np.testing.assert_array_equal(model.predict(x), expected.argmin(1))
    assert model.transform(x).dtype == dtype
    assert model.predict(x).dtype == np.int32


def test_scratch_lies_on_lines_of_the_cache() -> None:
    for columns in (4, 12):
        mine = host.Scratch(columns, np.dtype(np.float32), ((3, 5),))
        for array in (mine.tile, mine.lanes, mine.weight, mine.label, *mine.sums):
            assert array.ctypes.data % ALIGNMENT == 0


def test_of_equally_near_centres_the_first_is_taken() -> None:
    centres = np.array([[0.0], [2.0], [2.0], [0.0]])
    labels, _ = host.label(host.Block.of(np.array([[1.0], [2.0], [-1.0]]), np.dtype(float)), centres)
    assert labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [3, 20])
def test_as_scikit_learn(dtype: str, weighted: bool, d: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = blobs(1500, d, 6, dtype, spread=2)
    weights = np.random.default_rng(3).uniform(0, 2, 1500) if weighted else None
    for start in (x[:6], x[6:12]):
        model = KMeans(6, init=start).fit(x, sample_weight=weights)
        other = cluster.KMeans(6, init=start, n_init=1).fit(x, sample_weight=weights)
        np.testing.assert_array_equal(model.labels_, other.labels_)
        assert model.n_iter_ == other.n_iter_
        assert model.inertia_ == pytest.approx(other.inertia_, rel=1e-5)
        assert model.cluster_centers_.dtype == other.cluster_centers_.dtype == dtype
        np.testing.assert_allclose(model.cluster_centers_, other.cluster_centers_, rtol=1e-6, atol=1e-6)
        assert model.score(x, sample_weight=weights) == -model.inertia_
        assert model.score(x[:99]) == pytest.approx(other.score(x[:99]), rel=1e-5)
        np.testing.assert_allclose(model.transform(x), other.transform(x), rtol=1e-3)


@pytest.mark.parametrize("options", [{"tol": 0.0}, {"tol": 0.1}, {"max_iter": 3}])
def test_ends_when_scikit_learn_does(options: dict[str, Any]) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = np.random.default_rng(5).normal(size=(800, 3))
    model = KMeans(9, init=x[:9], **options).fit(x)
    other = cluster.KMeans(9, init=x[:9], n_init=1, **options).fit(x)
    assert model.n_iter_ == other.n_iter_
    np.testing.assert_array_equal(model.labels_, other.labels_)
    assert model.inertia_ == pytest.approx(other.inertia_, rel=1e-12)


def test_empty_clusters_move_to_the_farthest_rows_as_in_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = np.array([[0.0], [1.0], [2.0], [30.0], [77.0]])
    start = np.array([[1.0], [500.0], [600.0]])
    weights = np.array([1.0, 2.0, 1.0, 1.5, 3.0])
    for given in (None, weights):
        model = KMeans(3, init=start).fit(x, sample_weight=given)
        other = cluster.KMeans(3, init=start, n_init=1).fit(x, sample_weight=given)
        np.testing.assert_allclose(model.cluster_centers_, other.cluster_centers_, rtol=1e-12)
        assert model.labels_.tolist() == other.labels_.tolist() == [0, 0, 0, 2, 1]


def test_fewer_different_rows_than_clusters() -> None:
    x = np.array([[1.0, 2.0]] * 5 + [[3.0, 4.0]] * 4)
    with pytest.warns(RuntimeWarning, match="2 of 4 clusters have rows; X may have fewer different"):
        model = KMeans(4, random_state=0).fit(x)
    assert model.inertia_ == 0
    np.testing.assert_array_equal(model.cluster_centers_[model.labels_], x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_sums_are_within_the_stated_bound(dtype: str, scale: float) -> None:
    rng = np.random.default_rng(6)
    n, centres = 1000, np.array([[-1.0], [1.0]], dtype) * np.ones((1, 5), dtype) * scale
    x = ((rng.normal(0, 1, (n, 5)) * 10.0 ** np.arange(-2, 3)) * scale).astype(dtype)
    model = KMeans(2, init=centres, max_iter=1).fit(x)
    labels = squared(x, centres).argmin(1)
    bound = np.abs(x).max(0) * 2.0**-51
    for k in range(2):
        rows = x[labels == k].astype(object)
        for j in range(5):
            exact = sum(map(Fraction, rows[:, j].tolist())) / len(rows)
            last_place = float(np.spacing(np.array(abs(float(exact)), dtype)))  # and the rounding to the dtype
            error = abs(Fraction(float(model.cluster_centers_[k, j])) - exact)
            assert error <= float(bound[j]) + last_place


@pytest.mark.parametrize("values", [[1e-310, 2e-310, 5e-310], [3e100, 1e90, -7e99], [0.0, 0.0, 0.0]])
def test_very_small_and_large_values(values: list[float]) -> None:
    model = KMeans(1, random_state=0).fit(np.array(values)[:, None])
    scale = max(map(abs, values))
    assert model.cluster_centers_[0, 0] == pytest.approx(np.mean(np.array(values)), abs=max(scale * 1e-12, 1e-280))


def test_inertia_of_tight_clusters_far_apart() -> None:
    x = np.concatenate([np.linspace(0, 1e-3, 500), 1e7 + np.linspace(0, 1e-3, 500)])[:, None]
    model = KMeans(2, init=x[[0, -1]]).fit(x)
    expected = sum((part - part.mean()).var() * 500 for part in (x[:500], x[500:]))
    assert model.inertia_ == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_bits(dtype: str) -> None:
    x = np.random.default_rng(7).normal(3, 1, (5000, 6)).astype(dtype)
    before, found = gp.get_threads(), set()
    for threads in (1, 2, 4):
        gp.set_threads(threads)
        found.add(digest(KMeans(20, random_state=1, max_iter=5).fit(x)))
    gp.set_threads(before)
    assert len(found) == 1


def test_order_of_rows_does_not_change_the_centres() -> None:
    x = np.random.default_rng(8).normal(size=(3000, 4))
    order = np.random.default_rng(9).permutation(3000)
    weights = np.random.default_rng(10).uniform(size=3000)
    one = KMeans(5, init=x[:5]).fit(x, sample_weight=weights)
    two = KMeans(5, init=x[:5]).fit(x[order], sample_weight=weights[order])
    np.testing.assert_array_equal(one.cluster_centers_, two.cluster_centers_)
    np.testing.assert_array_equal(one.labels_[order], two.labels_)
    assert one.inertia_ == two.inertia_


def test_layout_and_dtype_of_rows() -> None:
    x = np.random.default_rng(11).integers(0, 256, (400, 3)).astype(np.uint8)
    first = KMeans(4, random_state=2).fit(x)
    assert first.cluster_centers_.dtype == np.float64
    for same in (x.astype(float), np.asfortranarray(x, dtype=float), np.repeat(x, 2, 0)[::2], x.tolist()):
        assert digest(KMeans(4, random_state=2).fit(same)) == digest(first)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_seeds(init: str) -> None:
    x = blobs(2000, 3, 12)
    weights = np.ones(2000)
    weights[:1000] = 0
    one, two, other = (KMeans(12, init=init, random_state=seed).fit(x) for seed in (0, 0, 1))
    assert digest(one) == digest(two) != digest(other)
    generator = KMeans(12, init=init, random_state=np.random.default_rng(0)).fit(x)
    assert digest(generator) == digest(one)
    KMeans(12, init=init, random_state=np.random.RandomState(0)).fit(x)
    data = Data.of(rows_of(x, x.dtype, weights))
    for seed in range(5):
        starts = KMeans(12, init=init)._initial(x, data, np.random.default_rng(seed))
        places = [np.flatnonzero((x == start).all(1))[0] for start in starts]
        assert len(set(places)) == 12
        assert min(places) >= 1000  # rows without weight are not drawn


def test_plus_plus_finds_separate_clusters() -> None:
    x = blobs(3000, 4, 20)
    best = KMeans(20, init=x[:20]).fit(x).inertia_
    assert all(KMeans(20, random_state=seed).fit(x).inertia_ == pytest.approx(best) for seed in range(3))


def test_the_best_of_several_starts_is_kept() -> None:
    x = blobs(1000, 3, 10)
    rng = np.random.default_rng(0)
    each = [KMeans(10, init="random", n_init=1, random_state=rng).fit(x) for _ in range(10)]
    best = min(each, key=lambda model: model.inertia_)
    assert best is not each[-1]
    assert digest(KMeans(10, init="random", random_state=0).fit(x)) == digest(best)
    calls = []

    def init(rows: Any, k: int, rng: np.random.Generator) -> Any:
        calls.append(rows.shape)
        return rows[rng.integers(len(rows), size=k)]

    model = KMeans(10, init=init, n_init=4, random_state=0).fit(x)
    assert calls == [(1000, 3)] * 4
    assert model.inertia_ == pytest.approx(model.score(x) * -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_partial_fit_is_a_running_mean(dtype: str, weighted: bool) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = blobs(1200, 3, 5, dtype, spread=3)
    rng = np.random.default_rng(12)
    model = KMeans(5, init=x[:5])
    other = cluster.MiniBatchKMeans(5, init=x[:5], n_init=1, reassignment_ratio=0)
    centres, counts = x[:5].astype(float), np.zeros(5)
    for batch in np.array_split(x, 7):
        weights = rng.uniform(0.5, 2, len(batch)) if weighted else np.ones(len(batch))
        model.partial_fit(batch, sample_weight=weights if weighted else None)
        other.partial_fit(batch, sample_weight=weights if weighted else None)
        labels = squared(batch.astype(float), centres).argmin(1)
        for k in range(5):
            here = labels == k
            total = centres[k] * counts[k] + (batch[here] * weights[here, None]).sum(0)
            counts[k] += weights[here].sum()
            centres[k] = total / counts[k] if here.any() else centres[k]
        np.testing.assert_allclose(model.cluster_centers_, centres, rtol=1e-5)
        np.testing.assert_allclose(model.cluster_centers_, other.cluster_centers_, rtol=1e-5)
        np.testing.assert_array_equal(model.labels_, other.labels_)
    assert model.n_steps_ == other.n_steps_ == 7
    assert model.cluster_centers_.dtype == dtype


def test_partial_fit_goes_on_after_fit() -> None:
    x = blobs(500, 2, 3)
    model = KMeans(3, init=x[:3]).fit(x[:300])
    before = model.cluster_centers_.copy()
    model.partial_fit(np.repeat(before[:1] + 1, 100, 0))
    count = np.count_nonzero(model.fit(x[:300]).labels_ == 0)
    model.partial_fit(np.repeat(before[:1] + 1, 100, 0))
    np.testing.assert_allclose(model.cluster_centers_[0], before[0] + 100 / (100 + count), rtol=1e-6)
    np.testing.assert_array_equal(model.cluster_centers_[1:], before[1:])


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model = KMeans(3, random_state=0, verbose=1).fit(blobs(300, 2, 3))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == model.n_iter_
    assert printed[0].startswith("Iteration 1, inertia ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_clusters": 0}, "n_clusters=0; expected a whole number, 1 or more"),
        ({"max_iter": 2.5}, "max_iter=2.5; expected a whole number"),
        ({"n_init": "many"}, "n_init='many'; expected \"auto\" or a whole number"),
        ({"tol": -1}, "tol=-1; expected a number, 0 or more"),
        ({"algorithm": "elkan"}, "algorithm='elkan'; expected 'lloyd'"),
        ({"init": "best"}, "init='best'; expected one of ('k-means++', 'random'), an array or a callable"),
        ({"init": np.zeros((3, 3))}, "init of shape (3, 3); expected (8, 2)"),
        ({"random_state": "x"}, "random_state='x'; expected an int"),
        ({"n_clusters": 51}, "KMeans of 50 rows: expected at least n_clusters=51"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        KMeans(**options).fit(np.random.default_rng(0).normal(size=(50, 2)))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros(5), "KMeans of shape (5,): expected (rows, features), at least one of each; x.reshape(-1, 1)"),
        (np.zeros((0, 2)), "KMeans of shape (0, 2)"),
        (np.zeros((9, 2), complex), "KMeans of complex128: expected real numbers"),
        (np.full((9, 2), np.nan), "x holds NaN or infinity; expected finite values"),
        (np.array([[0.0], [np.inf]] * 9), "x holds NaN or infinity"),
        (np.array([[0.0], [3e38]] * 9, "float32"), "overflow float32; expected smaller values"),
        (np.array([[-1e200], [1e200]] * 9), "overflow float64"),
    ],
)
def test_wrong_rows(x: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        KMeans().fit(x)
    assert text in str(caught.value)


def test_wrong_weights() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    for weights in (-np.ones(50), np.zeros(50), np.full(50, np.nan)):
        with pytest.raises(ValueError, match="sample_weight must be finite, not negative and not all 0"):
            KMeans().fit(x, sample_weight=weights)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(3,\); expected \(50,\)"):
        KMeans().fit(x, sample_weight=np.ones(3))
    some = np.arange(50) < 3
    with pytest.raises(gp.OptionError, match=r"above 0 for 3 rows; expected at least n_clusters=4 for init='random'"):
        KMeans(4, init="random").fit(x, sample_weight=some)
    assert KMeans(3, init="random").fit(x, sample_weight=some).inertia_ == 0


def test_rows_that_do_not_fit_the_centres() -> None:
    model = KMeans(2)
    for method in (model.predict, model.transform, model.score):
        with pytest.raises(NotFittedError, match=r"KMeans\.\w+ before fit; call fit or partial_fit first"):
            method(np.zeros((3, 2)))
    model.fit(np.random.default_rng(0).normal(size=(50, 2)))
    with pytest.raises(gp.ShapeError, match=r"KMeans\.predict of 3 features: it was fitted with 2"):
        model.predict(np.zeros((4, 3)))
    with pytest.raises(gp.ShapeError, match=r"KMeans\.partial_fit of 3 features: it was fitted with 2"):
        model.partial_fit(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        model.predict(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="squared distances of up to inf overflow float64"):
        model.predict(np.full((4, 2), 1e200))


def test_arrays_on_a_gpu_are_refused() -> None:
    class OnGpu:
        __cuda_array_interface__ = {"shape": (9, 2), "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012

    with pytest.raises(gp.DTypeError, match=r"KMeans of an array on a GPU is not there yet: .* gp.asnumpy"):
        KMeans().fit(OnGpu())


def test_running_sums_are_searched_exactly() -> None:
    rng = np.random.default_rng(13)
    x = rng.normal(size=(900, 3))
    data = Data.of(rows_of(x, x.dtype, rng.uniform(size=900)))
    scales, block = data.scales(), data.rows.blocks[0]
    chosen = x[:1]
    closest = host.come_closer(block, None, chosen)
    values = []
    for i in range(900):
        row = host.Block(x[i : i + 1], block.weights[i : i + 1])
        values.append(scales.distances.whole(host.potentials(row, closest[i : i + 1], chosen, scales)[0]))
    running = [sum(values[: i + 1]) for i in range(900)]
    places = [1, 2, 500, 898, 899]
    thresholds = sorted([running[i] - 1 for i in places] + [running[i] for i in places[:-1]])
    found = host.locate(block, closest, chosen, thresholds, scales)
    expected = x[[next(i for i in range(900) if running[i] > t) for t in thresholds]]
    np.testing.assert_array_equal(found, expected)


def test_whole_numbers_stand_for_what_they_were_made_of() -> None:
    for total in (0, 1, 12345678901234567890, 7 << 80):
        made = fixed.Fixed(3, 42)
        assert (made.split(total)[0] << 42) + made.split(total)[1] == total
        assert made.value(total) == total / 2**84 * 8
    assert fixed.bits_for(1) == fixed.bits_for(2**11) == 51
    assert fixed.bits_for(2**11 + 1) == 50
    assert fixed.bits_for(2**40) == 22
    data = Data.of(rows_of(np.arange(10.0)[:, None], np.dtype(float), None))
    assert Pass.over(data, np.array([[0.0]])).inertia == sum(i * i for i in range(10))
