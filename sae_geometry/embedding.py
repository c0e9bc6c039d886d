"""UMAP of one or many dictionaries, from exact cosine neighbours, with the evidence for how far to believe it.

The neighbours come from the exact sweep, never from an approximate index, and are handed to umap-learn (or cuML on a
GPU) as a finished graph: the metric is ours, whatever the engine would have done.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from sae_geometry.describe import describe_input, distinct, read_only
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.sweep import MAX_K, sweep
from sae_geometry.sources import as_dictionary
from sae_geometry.space import require_same_space

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Progress = Callable[[str, float], None]
Backend = Literal["auto", "umap-learn", "cuml"]
CUML_MINIMUM = (25, 8)
EVIDENCE_SAMPLE = 1000
EVIDENCE_K = 15


@dataclass(frozen=True)
class Neighbors:
    """Exact cosine neighbours of every point, itself first.

    Attributes:
        indices: int64 [n, k]; column 0 is the point itself, the rest by (cosine descending, index ascending).
        distances: float32 [n, k], max(1 − cosine, 0), ascending; column 0 exactly 0.
    """

    indices: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class Evidence:
    """How far the picture may be believed. Neighbour sets have k = 15, fewer where there are not 31 points.

    Attributes:
        k: size of the neighbourhoods.
        n_sampled: points over which trustworthiness is averaged (all, or a seeded sample of 1,000).
        trustworthiness: 1 − 2/(s·k·(2n − 3k − 1)) Σ (rank − k)⁺ over the picture's k neighbours, rank in cosine
            similarity in the original space (Venna & Kaski 2001); 1 is best.
        neighbor_preservation: mean share of the k nearest in the original space that are among the k nearest in the
            picture.
        mixing_original, mixing_picture: mean share of a point's k neighbours that belong to another dictionary.
        mixing_null: the same share expected if labels were permuted: 1 − Σ n_r(n_r − 1)/(N(N − 1)); nan for one
            dictionary.
    """

    k: int
    n_sampled: int
    trustworthiness: float
    neighbor_preservation: float
    mixing_original: float
    mixing_picture: float
    mixing_null: float

    def line(self) -> str:
        """One line for beneath a figure."""
        kept = f"{self.neighbor_preservation:.0%} (k = {self.k})"
        text = f"trustworthiness {self.trustworthiness:.3f}, neighbours kept {kept}"
        if not np.isnan(self.mixing_null):
            text += (
                f"; neighbours from another run: {self.mixing_original:.0%} in the original space, "
                f"{self.mixing_picture:.0%} in the picture, {self.mixing_null:.0%} if labels were shuffled"
            )
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """A UMAP: where each latent fell, whose it is, and how the picture was made.

    Attributes:
        coords: float32 [N, 2].
        owner: int64 [N], index into `names`.
        latent_id: int64 [N], original id within its dictionary.
        names: the dictionaries' names.
        params: n_neighbors, min_dist, metric, seed, backend and its version, spread over nothing hidden.
        evidence: how far to believe it.
        dictionaries: the dictionaries embedded.
        caveats: what every reader of the picture must know: allowed mismatches, unknown spaces.
    """

    coords: np.ndarray
    owner: np.ndarray
    latent_id: np.ndarray
    names: tuple[str, ...]
    params: dict[str, Any]
    evidence: Evidence
    dictionaries: tuple[Dictionary, ...]
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("coords", "owner", "latent_id"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def to_pandas(self) -> pd.DataFrame:
        """One row a latent: run, latent_id, x, y."""
        import pandas as pd

        names = np.array(self.names, dtype=object)
        return pd.DataFrame(
            {
                "run": names[self.owner],
                "latent_id": self.latent_id,
                "x": self.coords[:, 0],
                "y": self.coords[:, 1],
            }
        )

    def summary(self) -> dict[str, Any]:
        """Parameters, evidence and points a run, JSON-ready."""
        counts = np.bincount(self.owner, minlength=len(self.names))
        return {
            "inputs": [describe_input(d) for d in self.dictionaries],
            "points": {name: int(c) for name, c in zip(self.names, counts, strict=True)},
            "params": self.params,
            "evidence": {k: None if v != v else v for k, v in asdict(self.evidence).items()},
            "reproducible_with": "the same backend, version and seed",
            "caveats": list(self.caveats),
        }

    def plot(self, ax: Axes | None = None, style: str = "okabe-ito") -> Axes:
        """Scatter coloured by run, drawn in shuffled order, rasterised inside vector files."""
        from sae_geometry import plots

        return plots.embedding_scatter(self, ax=ax, style=style)

    def __repr__(self) -> str:
        runs = ", ".join(f"{n} ({c:,})" for n, c in self.summary()["points"].items())
        p = self.params
        return (
            f"Embedding of {len(self.owner):,} latents: {runs}\n"
            f"  UMAP, exact cosine neighbours (k = {p['n_neighbors']}), min_dist {p['min_dist']}, seed {p['seed']}, "
            f"{p['backend']} {p['backend_version']}\n  {self.evidence.line()}"
            + "".join(f"\n  {d.name}: {d.alive.describe()}" for d in self.dictionaries)
            + "".join(f"\n  caveat: {c}" for c in self.caveats)
        )


def embed(
    dictionaries: Any,
    n_neighbors: int = 15,
    *,
    min_dist: float = 0.1,
    seed: int = 0,
    n_epochs: int | None = None,
    backend: Backend = "auto",
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> Embedding:
    """UMAP of one dictionary, or of several jointly, from exact cosine neighbours.

    Args:
        dictionaries: a list of anything `compare` takes, or one such thing.
        n_neighbors: size of the neighbourhood, the point itself counted, as UMAP counts; 2…64.
        min_dist: UMAP's minimum distance between points in the picture.
        seed: makes the picture reproducible with the same backend and version.
        n_epochs: optimisation epochs; None lets the backend choose.
        backend: "cuml" needs a GPU and cuML ≥ 25.08; "umap-learn" runs anywhere; "auto" takes cuML when both are there.
        allow_mismatch: embed dictionaries of different hook points or models together.
        progress: called with what is being done and the share of it done, in [0, 1].

    Returns:
        Embedding: coords, owner, latent_id, names, params, evidence.

    Raises:
        ValueError: different widths or spaces, or n_neighbors outside 2…64 or not below the number of latents.

    Example:
        >>> import sae_geometry as sg
        >>> e = sg.embed(["demo:local-narrow-seed0"], n_epochs=20)
        >>> e.coords.shape
        (488, 2)
    """
    given = list(dictionaries) if isinstance(dictionaries, list | tuple) else [dictionaries]
    if not given:
        raise ValueError("there is nothing to embed: give at least one dictionary")
    dicts = distinct([as_dictionary(d) for d in given])
    found = [c for a, b in combinations(dicts, 2) for c in require_same_space(a, b, allow_mismatch)]
    caveats = tuple(dict.fromkeys([*(f"{d.name}: {note}" for d in dicts for note in d.notes), *found]))
    total = sum(d.n_latents for d in dicts)
    if not 2 <= n_neighbors <= MAX_K or n_neighbors >= total:
        raise ValueError(
            f"n_neighbors must be in 2…{MAX_K} and below the {total:,} latents to embed; got {n_neighbors}"
        )
    if not 0 <= min_dist <= 1 or not 0 <= seed < 2**32 or (n_epochs is not None and n_epochs < 1):
        raise ValueError(
            f"min_dist must be in 0…1, seed in 0…2³²−1 and n_epochs at least 1; got {min_dist}, {seed} and {n_epochs}"
        )
    engine, version, why = choose_backend(backend)
    points = torch.cat([d.directions.to(dicts[0].device) for d in dicts])
    # A wider neighbourhood than UMAP needs is kept for the evidence, if there are points enough.
    k_wide = min(max(n_neighbors, EVIDENCE_K + 1), total)
    search = None if progress is None else lambda share: progress("exact neighbours", share)
    wide = exact_neighbors(points, k_wide, search)
    graph = Neighbors(wide.indices[:, :n_neighbors].copy(), wide.distances[:, :n_neighbors].copy())
    run = _cuml if engine == "cuml" else _umap_learn
    if progress is not None:
        progress(f"UMAP ({engine})", 0.0)
    coords = run(points, graph, min_dist, seed, n_epochs)
    owner = np.repeat(np.arange(len(dicts)), [d.n_latents for d in dicts])
    params = {
        "n_neighbors": n_neighbors,
        "metric": "cosine",
        "neighbors": "exact (sweep)",
        "min_dist": min_dist,
        "seed": seed,
        "n_epochs": n_epochs,
        "backend": engine,
        "backend_version": version,
        "backend_why": why,
    }
    return Embedding(
        coords=coords,
        owner=owner,
        latent_id=np.concatenate([d.latent_ids.cpu().numpy() for d in dicts]),
        names=tuple(d.name for d in dicts),
        params=params,
        evidence=_evidence(points, wide, coords, owner, seed),
        dictionaries=tuple(dicts),
        caveats=caveats,
    )


def exact_neighbors(
    points: Float[torch.Tensor, "n d"], k: int, progress: Callable[[float], None] | None = None
) -> Neighbors:
    """The k exact cosine neighbours of every unit row, itself included and first.

    Self comes first by index, even where duplicates lie at the same distance 0.

    Args:
        points: float32 unit rows [n, d].
        k: neighbours including self, 1…min(n, 64).
        progress: called with the share done.
    """
    n = points.shape[0]
    if not 1 <= k <= min(n, MAX_K):
        raise ValueError(f"k counts the point itself and must be in 1…{min(n, MAX_K)} here; got {k}")
    indices = np.zeros((n, k), dtype=np.int64)
    distances = np.zeros((n, k), dtype=np.float32)
    indices[:, 0] = np.arange(n)
    if k > 1:
        found = sweep(points, None, k - 1, progress=progress).rows
        indices[:, 1:] = found.index.cpu().numpy()
        distances[:, 1:] = np.maximum(1.0 - found.cosine.cpu().numpy(), 0.0)
    return Neighbors(indices, distances)


def choose_backend(backend: Backend) -> tuple[str, str, str]:
    """(engine, version, why) for `embed`: the one asked for, or cuML where a GPU and cuML ≥ 25.08 are both there.

    Raises:
        ValueError: cuML asked for where it cannot run.
    """
    if backend not in ("auto", "umap-learn", "cuml"):
        raise ValueError(f"backend must be auto, umap-learn or cuml; got {backend!r}")
    gpu = torch.cuda.is_available()
    version = _version("cuml-cu13") or _version("cuml-cu12") or _version("cuml")
    new_enough = version is not None and tuple(int(p) for p in version.split(".")[:2]) >= CUML_MINIMUM
    importable = importlib.util.find_spec("cuml") is not None
    usable = gpu and new_enough and importable
    obstacle = (
        "there is no CUDA GPU"
        if not gpu
        else "cuML is not installed (pip install 'sae-geometry[cu13]')"
        if version is None or not importable
        else f"cuML {version} is older than 25.08, whose cosine metric can be trusted"
    )
    if backend == "cuml" and not usable:
        raise ValueError(f"backend cuml cannot run here: {obstacle}; use backend='umap-learn'")
    if usable and backend != "umap-learn":
        return "cuml", str(version), "asked for" if backend == "cuml" else "a GPU and cuML are there"
    return "umap-learn", _version("umap-learn") or "?", "asked for" if backend == "umap-learn" else obstacle


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _umap_learn(points: torch.Tensor, graph: Neighbors, min_dist: float, seed: int, n_epochs: int | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of TensorFlow and notebook widgets that it does not need
        import umap

    reducer = umap.UMAP(
        n_neighbors=graph.indices.shape[1],
        min_dist=min_dist,
        metric="cosine",
        n_epochs=n_epochs,
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(graph.indices.copy(), graph.distances.copy()),  # umap-learn writes into what it is given
        force_approximation_algorithm=True,  # below 4,096 points it would otherwise ignore the graph
        init="spectral" if len(points) > 3 else "random",
    )
    with warnings.catch_warnings():
        # We never transform new points, which is what a search index would be for.
        warnings.filterwarnings("ignore", message=".*knn_search_index.*")
        return np.asarray(reducer.fit_transform(points.cpu().numpy()), dtype=np.float32)


def _cuml(points: torch.Tensor, graph: Neighbors, min_dist: float, seed: int, n_epochs: int | None) -> np.ndarray:
    import cuml.manifold
    import cupy

    reducer = cuml.manifold.UMAP(
        n_neighbors=graph.indices.shape[1],
        min_dist=min_dist,
        metric="cosine",
        n_epochs=n_epochs,
        random_state=seed,
        precomputed_knn=(cupy.asarray(graph.indices), cupy.asarray(graph.distances)),
        output_type="numpy",
    )
    data = cupy.from_dlpack(points.detach().contiguous().cuda())
    return np.asarray(reducer.fit_transform(data), dtype=np.float32)


def _evidence(points: torch.Tensor, near: Neighbors, coords: np.ndarray, owner: np.ndarray, seed: int) -> Evidence:
    from scipy.spatial import cKDTree

    n = len(owner)
    k = max(1, min(EVIDENCE_K, (n - 1) // 2, near.indices.shape[1] - 1))  # trustworthiness needs k < n / 2
    original = near.indices[:, 1 : k + 1]
    picture = _without_self(cKDTree(coords).query(coords, k=k + 1)[1].reshape(n, k + 1))
    kept = np.mean([len(np.intersect1d(o, p, assume_unique=True)) for o, p in zip(original, picture, strict=True)]) / k
    sample = np.sort(np.random.default_rng(seed).permutation(n)[:EVIDENCE_SAMPLE])
    sizes = np.bincount(owner)
    mixing_null = 1 - float((sizes * (sizes - 1)).sum()) / (n * (n - 1)) if len(sizes) > 1 else float("nan")
    return Evidence(
        k=k,
        n_sampled=len(sample),
        trustworthiness=_trustworthiness(points, picture, sample, k),
        neighbor_preservation=float(kept),
        mixing_original=float((owner[original] != owner[:, None]).mean()),
        mixing_picture=float((owner[picture] != owner[:, None]).mean()),
        mixing_null=mixing_null,
    )


def _without_self(found: np.ndarray) -> np.ndarray:
    """[n, k+1] neighbours, self somewhere among them (or crowded out by coincident points) → [n, k] others."""
    n, width = found.shape
    is_self = found == np.arange(n)[:, None]
    is_self[~is_self.any(axis=1), width - 1] = True
    return found[~is_self].reshape(n, width - 1)


def _trustworthiness(points: torch.Tensor, picture: np.ndarray, sample: np.ndarray, k: int) -> float:
    """Mean over the sampled points; ranks counted in the original space by cosine, self left out."""
    n = points.shape[0]
    scale = k * (2 * n - 3 * k - 1)
    if scale <= 0:
        return float("nan")
    penalty = 0.0
    for part in np.array_split(sample, max(1, len(sample) * n // (1 << 24))):
        rows = torch.from_numpy(part)
        similarity = points[rows.to(points.device)] @ points.T
        similarity[torch.arange(len(part)), rows.to(points.device)] = -torch.inf
        theirs = torch.from_numpy(picture[part]).to(points.device)
        for column in range(k):
            chosen = similarity.gather(1, theirs[:, column : column + 1])
            rank = 1 + (similarity > chosen).sum(dim=1)
            penalty += float((rank - k).clamp(min=0).sum())
    return 1 - 2 * penalty / (len(sample) * scale)
