"""Tests of the cuML backend: the calls against a stand-in, and against cuML's own wheel if it is installed."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import oracles
import pytest
import torch

from sae_geometry.embedding import backends as layout
from sae_geometry.embedding.neighbors import exact_neighbors

K = 9


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    x = oracles.unit(rng.standard_normal((80, 12)))
    return torch.from_numpy(np.concatenate([x, x[:15]]))  # The duplicates are at distance 0 from each other.


@pytest.fixture
def stand_in(monkeypatch):
    """Replace the parts of cuML and CuPy that `_cuml` uses with host versions that record their arguments."""
    given: dict = {}

    class Array(np.ndarray):
        """Array that came through CuPy."""

    class UMAP:
        def __init__(self, **parameters):
            given["parameters"] = parameters

        def fit_transform(self, data):
            given["data"] = data
            return np.zeros((len(data), 2))

    def from_dlpack(tensor):
        given["dlpack"] = tensor
        return np.from_dlpack(tensor).view(Array)

    cuml, manifold, cupy = (types.ModuleType(name) for name in ("cuml", "cuml.manifold", "cupy"))
    manifold.UMAP, cuml.manifold = UMAP, manifold
    cupy.asarray, cupy.from_dlpack = (lambda a: np.asarray(a).view(Array)), from_dlpack
    for module in (cuml, manifold, cupy):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    given["kind"] = Array
    return given


def test_what_cuml_is_handed(points, stand_in):
    graph = exact_neighbors(points, K)
    before = graph.indices.copy(), graph.distances.copy()
    placed = layout.lay_out(points, graph, "cuml", min_dist=0.2, seeds=[7], n_epochs=33)
    assert placed[0].shape == (95, 2)
    assert placed[0].dtype == np.float32
    parameters = stand_in["parameters"]
    indices, distances = parameters.pop("precomputed_knn")
    assert parameters == {
        "n_neighbors": K, "min_dist": 0.2, "metric": "cosine", "n_epochs": 33, "random_state": 7,
        "output_type": "numpy",
    }  # fmt: skip
    assert isinstance(indices, stand_in["kind"])
    assert isinstance(distances, stand_in["kind"])
    assert (indices.dtype, distances.dtype) == (np.int64, np.float32)
    assert indices.shape == distances.shape == (95, K)
    np.testing.assert_array_equal(indices[:, 0], np.arange(95))
    np.testing.assert_array_equal(distances[:, 0], 0)
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_array_equal(indices, before[0])
    np.testing.assert_array_equal(distances, before[1])
    # The points are passed through DLPack and not copied through the host.
    assert stand_in["dlpack"].data_ptr() == points.data_ptr()
    assert isinstance(stand_in["data"], stand_in["kind"])
    np.testing.assert_array_equal(stand_in["data"], points.numpy())


def test_each_seed_is_a_layout_of_its_own(points, stand_in):
    shares: list[float] = []
    placed = layout.lay_out(
        points, exact_neighbors(points, K), "cuml", min_dist=0.1, seeds=[1, 2, 3], n_epochs=None, progress=shares.append
    )
    assert len(placed) == 3
    assert stand_in["parameters"]["random_state"] == 3
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.skipif(not importlib.util.find_spec("cuml"), reason="cuML's wheel is not installed")
def test_the_real_cuml_takes_our_neighbors_as_they_are(points):
    """Let cuML read a precomputed graph in host memory; this needs its wheel but no GPU."""
    from cuml.manifold.utils import extract_knn_graph

    graph = exact_neighbors(points, K)
    n = len(points)
    indices, distances = extract_knn_graph(
        (graph.indices, graph.distances), n_samples=n, n_neighbors=K, mem_type="host"
    )
    indices, distances = np.asarray(indices).reshape(n, K), np.asarray(distances).reshape(n, K)
    np.testing.assert_array_equal(indices[:, 0], np.arange(n))
    np.testing.assert_array_equal(indices, graph.indices)
    np.testing.assert_array_equal(distances, graph.distances)
    swapped = graph.indices.copy()
    swapped[0, :2] = swapped[0, 1::-1]
    with pytest.raises(ValueError, match="self references"):
        extract_knn_graph((swapped, graph.distances), n_samples=n, n_neighbors=K, mem_type="host")


@pytest.mark.parametrize(
    ("gpu", "version", "importable", "engine", "why"),
    [
        (True, "26.10.00", True, "cuml", "a GPU and cuML are available"),
        (True, "25.08.00", True, "cuml", "a GPU and cuML are available"),
        (True, "25.06.00", True, "numba", "cuML 25.06.00 is older than 25.08"),
        (True, None, False, "numba", "cuML is not installed"),
        (False, "26.10.00", True, "numba", "there is no CUDA GPU"),
    ],
)
def test_cuml_is_taken_where_it_can_be_trusted(monkeypatch, gpu, version, importable, engine, why):
    real = importlib.util.find_spec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(layout, "_version", lambda p: version if p == "cuml-cu13" else None if "cuml" in p else "1.0")
    monkeypatch.setattr(
        layout.importlib.util, "find_spec", lambda name: importable or None if name == "cuml" else real(name)
    )
    chosen, _, said = layout.choose_backend("auto")
    assert chosen == engine
    assert why in said
    assert layout.choose_backend("umap-learn")[0] == "umap-learn"
