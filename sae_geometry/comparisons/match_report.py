"""One-to-one matching of two dictionaries, in full, as a JSON-ready record with a versioned schema.

Public code uses the name MCC for several quantities; this record gives the formula of each number, states whether it
is signed or absolute, and certifies every matching with an optimality gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, running_on
from sae_geometry.io.formatting import scalars
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Sweep
from sae_geometry.matching import Assignment, Step, match, shared_curve
from sae_geometry.matching.optimal import CANDIDATES
from sae_geometry.matching.shared import THRESHOLD, THRESHOLDS
from sae_geometry.nulls import Expected, How, default_turns, pair_controls, turned_pairs
from sae_geometry.pairwise.confounds import confound_audit
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.matching_result import Matching, nearest_matching
from sae_geometry.pairwise.same_space import encoder_hook, encoder_place_key, place_key, require_same_space

SCHEMA = "urn:sae-geometry:match-report"
SCHEMA_VERSION = "2.0"


_FORMULAS = {
    "signed": "PW-MCC = (1/K) Σ_{(i,j)∈π} ⟨a_i, b_j⟩, K = min(n, m), π the one-to-one matching of K pairs with the "
    "largest Σ ⟨a_i, b_j⟩; a_i, b_j unit decoder directions",
    "absolute": "PW-MCC = (1/K) Σ_{(i,j)∈π} |⟨a_i, b_j⟩|, K = min(n, m), π the one-to-one matching of K pairs with the "
    "largest Σ |⟨a_i, b_j⟩|; a_i, b_j unit decoder directions",
}
_MMCS = "MMCS(A→B) = (1/n) Σ_i max_j ⟨a_i, b_j⟩: signed, partners may be shared (double counting)"
_SHARED = (
    "shared(t): latents of A whose one-to-one decoder cosine is > t and whose one-to-one encoder cosine is > t "
    "(Paulo & Belrose 2025, t = 0.7), the two matchings made separately, each optimal and signed; same partner: both "
    "matchings name the same latent of B. Shares are out of min(n, m)"
)
_CHANCE = (
    "a_to_b, b_to_a: E[max_j ⟨x, y_j⟩] over m independent isotropic directions, a floor in an anisotropic space; "
    "turned: MMCS against the target turned by an orthogonal map that keeps its mean, second moment and inner cosines; "
    "own: mean cosine to the nearest other latent of the source; one_to_one: the PW-MCC of A with B turned"
)


def match_report(
    a: Dictionary,
    b: Dictionary,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    max_gap: float = 0.0,
    time_budget: float = math.inf,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the PW-MCC of two dictionaries, signed and absolute, with the full matchings and the shared latents.

    PW-MCC = (1/K) Σ_{(i,j)∈π} S_ij with K = min(n, m), S_ij the cosine (or its absolute value) of unit decoder
    directions and π the optimal one-to-one matching: see `sae_geometry.matching.match`. MMCS in both directions, double
    counting allowed, is given for comparison. Encoders of equal width are matched too, which gives Paulo & Belrose's
    shared latents at every threshold and the share of latents with the same partner in both matchings.

    Args:
        a, b: the dictionaries.
        thresholds: for the shared latents, each within −1…1; 0.7 is always included.
        max_gap: stop each matching once its relative optimality gap is proven to be at most this.
        time_budget: stop each matching after about this many seconds, with the gap reached.
        allow_mismatch: permit different models or hook points; the record says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; sweeps run there.
        provenance: the caller's provenance (versions, command, time), stored unchanged.
        progress: called with the current step and its completed fraction.

    Returns:
        A dict that `json.dumps` takes and `schema()` describes. Latents are named by their original ids.

    Raises:
        ValueError: dictionaries of different spaces, or a threshold out of range.

    Example:
        >>> from sae_geometry.dictionary import Dictionary
        >>> d = Dictionary.from_decoder([[1.0, 0.0], [0.0, 2.0]], latent_axis=0, name="d")
        >>> match_report(d, d)["pw_mcc"]["signed"]["value"]
        1.0
    """
    notes = tuple(f"{d.name}: {note}" for d in (a, b) for note in d.notes)
    caveats = dict.fromkeys(notes + require_same_space(a, b, allow_mismatch))
    levels = sorted({*(float(t) for t in thresholds), THRESHOLD})
    if not all(-1 <= t <= 1 for t in levels):
        raise ValueError(f"thresholds are cosines, within −1…1; got {[t for t in levels if not -1 <= t <= 1]}")
    b = b.to(a.device)

    def said(what: str) -> Callable[[Step], None] | None:
        return None if progress is None else lambda step: progress(f"{what}: {step.label}", step.share)

    how: dict[str, Any] = {"max_gap": max_gap, "time_budget": time_budget}
    first = None if progress is None else lambda share: progress("decoders: candidates", share)
    encoder, missing = None, _why_no_encoders(a, b)
    with running_on(executor):
        lists = listing_sweep(a.directions, b.directions, CANDIDATES, progress=first)
        assert lists.cols is not None
        forth, back = _nearest(a, b, lists, progress)
        signed = match(a.directions, b.directions, "optimal", nearest=lists, progress=said("decoders"), **how)
        absolute = match(a.directions, b.directions, "optimal", absolute=True, progress=said("|decoders|"), **how)
        if missing is None:
            assert a.encoder_directions is not None
            assert b.encoder_directions is not None
            encoder = match(a.encoder_directions, b.encoder_directions, "optimal", progress=said("encoders"), **how)
        if progress is not None:
            progress("chance of the matching", 0.0)
        turns = default_turns(a.n_latents, b.n_latents)
        by_chance = {
            name: _plain(turned_pairs(a.directions, b.directions, "optimal", turns, absolute=name == "absolute", **how))
            for name in ("signed", "absolute")
        }
    caveats |= dict.fromkeys((*forth.doubts, *back.doubts))
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "inputs": {"a": describe_input(a), "b": describe_input(b)},
        "caveats": list(caveats),
        "confounds": confound_audit(a, b).summary(),
        "parameters": {
            "method": "optimal",
            "thresholds": levels,
            "max_gap": max_gap,
            "time_budget_seconds": None if math.isinf(time_budget) else time_budget,
        },
        "pw_mcc": {"signed": _pw_mcc(signed), "absolute": _pw_mcc(absolute)},
        "mmcs": {
            "formula": _MMCS,
            "a_to_b": float(lists.rows.score[:, 0].clamp(-1, 1).mean()),
            "b_to_a": float(lists.cols.score[:, 0].clamp(-1, 1).mean()),
        },
        "chance": {
            "formula": _CHANCE,
            "a_to_b": forth.isotropic_chance,
            "b_to_a": back.isotropic_chance,
            "turned": {"a_to_b": _plain(forth.expected), "b_to_a": _plain(back.expected)},
            "own": {"a_to_b": _or_none(forth.own), "b_to_a": _or_none(back.own)},
            "one_to_one": by_chance,
        },
        "significant": {"a_to_b": forth.significance_summary(), "b_to_a": back.significance_summary()},
        "shared": {"missing": missing} if encoder is None else _shared(signed, encoder, b.n_latents, levels),
        "matchings": {
            "decoder_signed": _with_q_values(_matching(a, b, signed), signed, forth, back),
            "decoder_absolute": _matching(a, b, absolute),
            "encoder_signed": None if encoder is None else _matching(a, b, encoder),
        },
        "provenance": dict(provenance or {}),
    }


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of `match_report`'s record, as shipped in `sae_geometry/schemas`."""
    text = files("sae_geometry").joinpath("schemas/match.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _nearest(a: Dictionary, b: Dictionary, lists: Sweep, progress: Progress | None) -> tuple[Matching, Matching]:
    """Return the nearest matchings of both directions, with their controls."""
    assert lists.cols is not None
    controls = pair_controls(a.directions, b.directions, lists, How(), progress)
    return nearest_matching(a, b, lists.rows, controls[0]), nearest_matching(b, a, lists.cols, controls[1])


def _with_q_values(record: dict[str, Any], made: Assignment, forth: Matching, back: Matching) -> dict[str, Any]:
    """Return the record of a matching with one q-value per pair: the larger of its two directions."""
    rows = np.flatnonzero(made.partner >= 0)
    cols = made.partner[rows]
    q = np.maximum(
        forth.q_values_of(rows, made.cosine[rows]),
        back.q_values_of(cols, made.cosine[rows]),
    )
    record["pairs"]["q_value"] = q.tolist()
    return record


def _plain(expected: Expected) -> dict[str, Any]:
    return {k: _or_none(float(v)) for k, v in asdict(expected).items()} | {"turns": expected.turns}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pw_mcc(made: Assignment) -> dict[str, Any]:
    assert made.certificate is not None
    return {
        "value": min(made.total / made.n_matched, 1.0),
        "upper_bound": made.certificate.bound / made.n_matched,
        "n_pairs": made.n_matched,
        "formula": _FORMULAS["absolute" if made.absolute else "signed"],
    }


def _matching(a: Dictionary, b: Dictionary, made: Assignment) -> dict[str, Any]:
    rows = np.flatnonzero(made.partner >= 0)
    cols = made.partner[rows]
    ids_a, ids_b = a.latent_ids.cpu().numpy(), b.latent_ids.cpu().numpy()
    assert made.certificate is not None
    return {
        "similarity": "absolute cosine" if made.absolute else "cosine",
        "n_matched": made.n_matched,
        "total": made.total,
        "certificate": scalars(made.certificate),
        "pairs": {
            "a_latent_id": ids_a[rows].tolist(),
            "b_latent_id": ids_b[cols].tolist(),
            "cosine": made.cosine[rows].clip(-1.0, 1.0).tolist(),
        },
        "unmatched_a": ids_a[made.partner < 0].tolist(),
        "unmatched_b": np.delete(ids_b, cols).tolist(),
    }


def _shared(decoder: Assignment, encoder: Assignment, n_columns: int, levels: list[float]) -> dict[str, Any]:
    curve = shared_curve(decoder, encoder, n_columns=n_columns, thresholds=levels)
    names = ("decoder", "encoder", "both", "both_same_partner")
    return {
        "formula": _SHARED,
        "n_pairs": curve.n_pairs,
        "same_partner": curve.same_partner,
        "same_partner_share": curve.same_partner / curve.n_pairs,
        "curve": [
            {
                "threshold": t,
                **{name: int(getattr(curve, name)[at]) for name in names},
                "both_share": int(curve.both[at]) / curve.n_pairs,
            }
            for at, t in enumerate(levels)
        ],
    }


def _why_no_encoders(a: Dictionary, b: Dictionary) -> str | None:
    without = [d.name for d in (a, b) if d.encoder_directions is None]
    if without:
        return f"no encoder in {' and '.join(without)}"
    assert a.encoder_directions is not None
    assert b.encoder_directions is not None
    if a.encoder_directions.shape[1] != b.encoder_directions.shape[1]:
        return "the encoders read spaces of different width"
    if encoder_place_key(a) != encoder_place_key(b) and place_key(a) == place_key(b):
        return f"the encoders read different places, {encoder_hook(a) or 'unknown'} and {encoder_hook(b) or 'unknown'}"
    return None
