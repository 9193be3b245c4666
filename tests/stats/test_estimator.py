"""What scikit-learn expects of `PCA` and `KMeans`: parameters by name, clones, pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.base
from sklearn.pipeline import make_pipeline

import gpucompute as gp
from gpucompute.cluster import KMeans
from gpucompute.stats import PCA

x = np.random.default_rng(0).normal(size=(300, 4)) + 10 * (np.arange(300) % 3)[:, None]


@pytest.mark.parametrize(
    ("model", "changes", "text"),
    [
        (
            KMeans(3, init="random", tol=0.5, random_state=1),
            {"n_clusters": 7, "tol": 0.1},
            "KMeans(n_clusters=7, init='random', tol=0.1, random_state=1)",
        ),
        (PCA(2, whiten=True), {"n_components": 0.5, "whiten": False}, "PCA(n_components=0.5)"),
    ],
)
def test_parameters(model: Any, changes: dict[str, Any], text: str) -> None:
    before = model.get_params()
    copy = sklearn.base.clone(model)
    assert copy is not model
    assert copy.get_params() == before
    assert copy.set_params(**changes) is copy
    assert copy.get_params() == {**before, **changes}
    assert model.get_params() == before
    assert repr(copy) == text
    name, first = type(model).__name__, next(iter(before))
    with pytest.raises(gp.OptionError, match=f"{name} has no parameter 'clusters'; it has: {first}, "):
        model.set_params(clusters=3)


def test_fitting_and_using_at_once() -> None:
    fitted = KMeans(3, random_state=0).fit(x)
    assert fitted.n_features_in_ == 4
    np.testing.assert_array_equal(KMeans(3, random_state=0).fit_predict(x), fitted.labels_)
    np.testing.assert_array_equal(KMeans(3, random_state=0).fit_transform(x), fitted.transform(x))
    np.testing.assert_array_equal(PCA(2).fit_transform(x), PCA(2).fit(x).transform(x))


def test_pipelines() -> None:
    pipeline = make_pipeline(PCA(2), KMeans(3, random_state=0)).fit(x)
    fitted = KMeans(3, random_state=0).fit(PCA(2).fit_transform(x))
    np.testing.assert_array_equal(pipeline.predict(x), fitted.labels_)
    assert sklearn.base.is_clusterer(pipeline[-1])
    assert not sklearn.base.is_clusterer(pipeline[0])
