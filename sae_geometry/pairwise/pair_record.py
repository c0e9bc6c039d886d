"""Checkpoint record of one pair of runs, with the data for every matrix and curve, linear in the number of latents."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.matching import On, OneToOne, operands
from sae_geometry.sources.cache import wrote

VERSION = 6
N_BANDS = 7  # six decades of firing frequency, and one band of all but the densest latents
N_BINS = 400  # bins of the histogram of nearest similarities over −1…1
_ROUNDING = 1e-5  # tolerance for similarities of float32 unit rows
_LONGEST = 4000  # maximum length in characters of a confound, which names a few latents and runs
_SAMPLE = 8  # number of sampled latents per matching whose similarities are recomputed


@dataclass(frozen=True)
class PairParameters:
    """Parameters that determine a pair's record, apart from the two dictionaries."""

    matching: OneToOne
    on: On
    signed: bool
    threshold: float


@dataclass(frozen=True, eq=False)
class PairRecord:
    """Record of one unordered pair of runs. Tuples of two are (first → second, second → first).

    Attributes:
        mmcs: mean maximum cosine similarity, with double counting.
        nearest_above: share of the source's latents whose nearest is above the threshold.
        nearest_above_chance: the same share against the turned target.
        chance, own, isotropic: `mmcs` against the turned target, of the source with itself, and of isotropic
            directions.
        significant: share of the source's latents with a significant nearest latent (FDR 5%).
        beyond: lower bound on the share of latents whose partner no control explains: 2 · wins − 1.
        paired: mean similarity over the one-to-one pairs.
        paired_chance: null expectation of `paired`, computed against the turned second run.
        explained: maximum similarity of one-to-one partners that the two dictionaries' own latents explain.
        certified_gap: relative optimality gap of an optimal matching; nan otherwise.
        partner: int32 [n], row in the second run of each first latent's one-to-one partner; −1 for none.
        similarity: float64 [n], similarity to those partners; nan for none.
        histogram: [2, 400], counts of nearest similarities in both directions, in the smallest unsigned type.
        significant_latents: bool [n + m], which latents of the first and second run have a significant nearest latent.
        bands: float64 [2, bands, 2], in both directions and per band of frequency the sum of nearest similarities and
            the number of significant latents; nan if frequencies are unknown.
        confounds: flagged confounds of the pair, in words.
        encoder_partner, encoder_similarity: the same matching on the encoders; empty if they cannot be matched.
    """

    mmcs: tuple[float, float]
    nearest_above: tuple[float, float]
    nearest_above_chance: tuple[float, float]
    chance: tuple[float, float]
    own: tuple[float, float]
    isotropic: tuple[float, float]
    significant: tuple[float, float]
    beyond: tuple[float, float]
    paired: float
    paired_chance: float
    explained: float
    certified_gap: float
    confounds: tuple[str, ...]
    partner: np.ndarray
    similarity: np.ndarray
    histogram: np.ndarray
    significant_latents: np.ndarray
    bands: np.ndarray
    encoder_partner: np.ndarray
    encoder_similarity: np.ndarray


_ARRAYS = [f.name for f in fields(PairRecord) if f.type == "np.ndarray"]


def pair_path(folder: Path, a: Dictionary, b: Dictionary, parameters: PairParameters) -> Path:
    """Return the path of a pair's record, whose name is a hash of the dictionaries and parameters."""
    key = hashlib.sha256(json.dumps(_identity(a, b, parameters), sort_keys=True).encode()).hexdigest()
    return folder / f"{key[:24]}.npz"


def write_pair(path: Path, record: PairRecord, a: Dictionary, b: Dictionary, parameters: PairParameters) -> None:
    """Write the record of a pair atomically."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    plain = {k: v for k, v in values.items() if k not in _ARRAYS}
    about = json.dumps({"identity": _identity(a, b, parameters), "values": plain})
    wrote(path)  # `clear_cache` removes only files that were recorded before they were written.
    with whole_file(path, ".pair-") as file:
        np.savez(file, about=np.array(about), **{k: values[k] for k in _ARRAYS})


def read_pair(path: Path, a: Dictionary, b: Dictionary, parameters: PairParameters) -> PairRecord | None:
    """Read the record of a pair and its parameters; return None if the file is missing, damaged or of another pair."""
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            if any(member.compress_type for member in stored.zip.infolist()):
                return None  # Records are not compressed; a compressed file could expand to any size.
            about = json.loads(str(stored["about"]))
            arrays = {k: stored[k] for k in _ARRAYS}
        if about["identity"] != _identity(a, b, parameters):
            return None
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["values"].items()}
        record = PairRecord(**values | arrays)
        check_pair(record, a, b, parameters)
    except Exception:  # A corrupt file may raise any exception.
        return None
    return record


def check_pair(record: Any, a: Dictionary, b: Dictionary, parameters: PairParameters) -> None:
    """Check a record that comes from a worker or a file, and recompute a sample of its similarities.

    Raises:
        ValueError, TypeError, AttributeError: the record does not belong to this pair.
    """
    if not isinstance(record, PairRecord):
        raise TypeError(f"the record is a {type(record).__name__}, not a PairRecord")
    for name in ("mmcs", "chance", "own", "isotropic"):
        _check_range(getattr(record, name), -1.0, 1.0, name, (2,))
    for name in ("nearest_above", "nearest_above_chance", "significant", "beyond"):
        _check_range(getattr(record, name), 0.0, 1.0, name, (2,))
    for name in ("paired", "paired_chance"):
        _check_range(getattr(record, name), -1.0, 1.0, name, ())
    controls = [record.nearest_above, record.nearest_above_chance, record.chance, record.beyond]
    controls += [record.isotropic] if parameters.on != "both" else []  # A mean of two cosines has no closed form.
    if min(a.n_latents, b.n_latents) > 1 and not np.isfinite(controls).all():
        raise ValueError("the record's shares and controls are not all finite")
    if not (record.explained == np.inf or -2 <= record.explained <= 1 + _ROUNDING) or record.certified_gap < 0:
        raise ValueError("the record's level of explained partners or its optimality gap is out of range")
    if any(type(getattr(record, name)) is not np.ndarray for name in _ARRAYS):
        raise TypeError("the record's lists are not NumPy arrays")
    counts = record.histogram
    if counts.shape != (2, N_BINS) or counts.dtype.kind != "u":
        raise ValueError("the record's histogram has the wrong shape or type")
    if counts.sum(axis=1, dtype=np.int64).tolist() != [a.n_latents, b.n_latents]:
        raise ValueError("the record's histogram counts the wrong number of latents")
    middles = (np.arange(N_BINS) + 0.5) * 2 / N_BINS - 1
    if not (np.abs(counts @ middles / counts.sum(axis=1) - record.mmcs) <= 1 / N_BINS + _ROUNDING).all():
        raise ValueError("the record's mmcs differs from the mean of its histogram")
    found = record.significant_latents
    if found.shape != (a.n_latents + b.n_latents,) or found.dtype != np.bool_:
        raise ValueError("the record's significant latents have the wrong shape or type")
    if not np.allclose([part.mean() for part in np.split(found, [a.n_latents])], record.significant):
        raise ValueError("the record's share of significant latents differs from the latents it lists as significant")
    n_latents = np.array([a.n_latents, b.n_latents])[:, None, None]
    if record.bands.shape != (2, N_BANDS, 2) or record.bands.dtype != np.float64:
        raise ValueError("the record's frequency bands have the wrong shape or type")
    _check_range(record.bands / n_latents, -1.0, 1.0, "mean per frequency band")
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in record.confounds):
        raise TypeError(f"the record's confounds are not strings of at most {_LONGEST:,} characters")
    _check_matching(record.partner, record.similarity, a, b, parameters.on, parameters.signed)
    if len(record.encoder_partner):
        _check_matching(record.encoder_partner, record.encoder_similarity, a, b, "encoder", parameters.signed)
    matched = record.similarity[record.partner >= 0]
    if len(matched) and not abs(matched.mean() - record.paired) <= _ROUNDING:
        raise ValueError("the record's mean similarity differs from the mean of its similarities")


def _check_matching(
    partner: np.ndarray, similarity: np.ndarray, a: Dictionary, b: Dictionary, on: On, signed: bool
) -> None:  # fmt: skip
    typed = partner.dtype == np.int32 and similarity.dtype == np.float64
    if not typed or not partner.shape == similarity.shape == (a.n_latents,):
        raise ValueError("the record's matching has the wrong shape or type")
    rows = np.flatnonzero(partner >= 0)
    if (partner < -1).any() or (partner >= b.n_latents).any() or len(np.unique(partner[rows])) != len(rows):
        raise ValueError("the record's matching has a partner that is out of range or used twice")
    _check_range(similarity[rows], -1.0, 1.0, "similarity")
    sample = np.random.default_rng().choice(rows, size=min(_SAMPLE, len(rows)), replace=False)
    x, y = operands(_sides(a, sample), _sides(b, partner[sample]), on)
    u, v = (z.cpu().numpy().astype(np.float64) for z in (x, y))
    again = (u * v).sum(axis=1)
    if not np.allclose(again if signed else np.abs(again), similarity[sample], rtol=0, atol=_ROUNDING):
        raise ValueError("the record's similarities differ from those of the two dictionaries")


def _sides(d: Dictionary, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
    at = torch.from_numpy(rows.astype(np.int64)).to(d.device)
    return d.directions[at], None if d.encoder_directions is None else d.encoder_directions[at]


def _check_range(values: Any, low: float, high: float, name: str, shape: tuple[int, ...] | None = None) -> None:
    known = np.asarray(values, dtype=np.float64)
    if shape is not None and known.shape != shape:
        raise ValueError(f"the record's {name} has the wrong shape")
    if (known < low - _ROUNDING).any() or (known > high + _ROUNDING).any():
        raise ValueError(f"the record's {name} is outside [{low:g}, {high:g}]")


def _identity(a: Dictionary, b: Dictionary, parameters: PairParameters) -> dict[str, Any]:
    return {"version": VERSION, "a": a.fingerprint, "b": b.fingerprint, **asdict(parameters)}
