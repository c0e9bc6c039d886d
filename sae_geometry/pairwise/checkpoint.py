"""What is kept of one pair of runs among many, on disk too: enough for every matrix and curve, linear in latents."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.matching import On, OneToOne

VERSION = 2
N_BINS = 400  # of the histogram of nearest similarities over −1…1
_ARRAYS = ("partner", "similarity", "histogram", "encoder_partner", "encoder_similarity")


@dataclass(frozen=True)
class PairParameters:
    """What a pair's record depends on beside the two dictionaries."""

    matching: OneToOne
    on: On
    signed: bool
    threshold: float


@dataclass(frozen=True, eq=False)
class PairRecord:
    """One unordered pair of runs. Tuples of two are (first → second, second → first).

    Attributes:
        mmcs: mean max cosine similarity, double counting allowed.
        nearest_above: share of the source's latents whose nearest is above the threshold.
        nearest_above_chance: the same for the nearest of as many random directions with the target's moments.
        chance, isotropic: what chance gives to mmcs: directions with the target's moments, isotropic ones.
        found: share of the source's latents closer to their nearest than chance, 5 % false discoveries.
        paired: mean similarity over the one-to-one pairs.
        paired_chance: what the matching gives on random dictionaries; nan where not simulated.
        certified_gap: relative optimality gap of an optimal matching; nan otherwise.
        partner: int32 [n], row of each first latent's one-to-one partner; −1 none.
        similarity: float64 [n], of those; nan none.
        histogram: [2, 400] of the smallest unsigned type that holds the counts, nearest similarities, both directions.
        confounds: flagged confounds of the pair, in words.
        encoder_partner, encoder_similarity: the same matching made on the encoders; empty where they cannot be.
    """

    mmcs: tuple[float, float]
    nearest_above: tuple[float, float]
    nearest_above_chance: tuple[float, float]
    chance: tuple[float, float]
    isotropic: tuple[float, float]
    found: tuple[float, float]
    paired: float
    paired_chance: float
    certified_gap: float
    confounds: tuple[str, ...]
    partner: np.ndarray
    similarity: np.ndarray
    histogram: np.ndarray
    encoder_partner: np.ndarray
    encoder_similarity: np.ndarray


def pair_path(folder: Path, a: Dictionary, b: Dictionary, parameters: PairParameters) -> Path:
    """Where the record of this pair lies: named after what it depends on."""
    key = hashlib.sha256(json.dumps(_identity(a, b, parameters), sort_keys=True).encode()).hexdigest()
    return folder / f"{key[:24]}.npz"


def write_pair(path: Path, record: PairRecord, a: Dictionary, b: Dictionary, parameters: PairParameters) -> None:
    """Write a record, whole or not at all."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    plain = {k: v for k, v in values.items() if k not in _ARRAYS}
    about = json.dumps({"identity": _identity(a, b, parameters), "values": plain})
    with whole_file(path, ".pair-") as file:
        np.savez(file, about=np.array(about), **{k: values[k] for k in _ARRAYS})


def read_pair(path: Path, a: Dictionary, b: Dictionary, parameters: PairParameters) -> PairRecord | None:
    """The record of exactly this pair and these parameters; None where it is missing, damaged or of something else."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            arrays = {k: stored[k] for k in _ARRAYS}
        if about["identity"] != _identity(a, b, parameters):
            return None
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["values"].items()}
        record = PairRecord(**values | arrays)
    except Exception:  # one flipped bit may raise anything
        return None
    n_b = b.n_latents
    fits = record.partner.shape == record.similarity.shape == (a.n_latents,) and record.histogram.shape == (2, N_BINS)
    return record if fits and (not len(record.partner) or int(record.partner.max()) < n_b) else None


def _identity(a: Dictionary, b: Dictionary, parameters: PairParameters) -> dict[str, Any]:
    return {"version": VERSION, "a": a.fingerprint, "b": b.fingerprint, **asdict(parameters)}
