"""Full record of the one-to-one matching of two dictionaries, JSON-ready and with a versioned schema.

Public code uses the name MCC for several quantities; this record gives the formula of each number, states whether it
is signed or absolute, and certifies every matching with an optimality gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons.pair import compare
from sae_geometry.comparisons.pair_matchings import pair_operands
from sae_geometry.comparisons.pair_result import Comparison, ComparisonAnswer
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, settings
from sae_geometry.io.formatting import scalars
from sae_geometry.io.frozen import freeze
from sae_geometry.io.progress import Progress
from sae_geometry.labels.pairs import PairLabels
from sae_geometry.matching import Assignment, Step, shared_curve
from sae_geometry.matching import match as solve
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.matching.shared import THRESHOLDS
from sae_geometry.nulls import Expected, turned_pairs
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.pairwise.same_space import encoder_hook, encoder_place_key, place_key
from sae_geometry.results.store import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "urn:sae-geometry:match-report"
SCHEMA_VERSION = "2.0"


_PW_MCC = (
    "PW-MCC = (1/K) Σ_{{(i,j)∈π}} {0}, K = min(n, m), π the one-to-one matching of K pairs with the largest Σ {0}; "
    "a_i, b_j unit decoder directions"
)
_MMCS = "MMCS(A→B) = (1/n) Σ_i max_j ⟨a_i, b_j⟩: signed, partners may be shared (double counting)"
_SHARED = (
    "shared(t): latents of A whose one-to-one decoder cosine is > t and whose one-to-one encoder cosine is > t "
    "(Paulo & Belrose 2025, t = 0.7), where the two matchings are separate, optimal and signed; same partner: both "
    "matchings name the same latent of B. Shares are relative to min(n, m)"
)
_CHANCE = (
    "a_to_b, b_to_a: E[max_j ⟨x, y_j⟩] over m independent isotropic directions, a floor in an anisotropic space; "
    "turned: MMCS against the turned target (an orthogonal map keeps its principal axes and inner cosines); own: mean "
    "cosine to the nearest other latent of the source; one_to_one: the PW-MCC of A with the turned B"
)


@dataclass(frozen=True, eq=False, repr=False)
class MatchReport(ComparisonAnswer):
    """Optimal one-to-one matching of two dictionaries, with its certified record.

    Attributes:
        comparison: the comparison by optimal matching.
    """

    comparison: Comparison
    _record: Mapping[str, Any]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def record(self) -> dict[str, Any]:
        """Return the contents of `match.json`, which `schema()` describes; latents have their original ids."""
        return dict(self._record)

    @property
    def headline(self) -> str:
        return self.comparison.headline

    @property
    def sentences(self) -> str:
        return self.comparison.sentences

    def summary(self) -> dict[str, Any]:
        """Return the summary of the comparison, the PW-MCC (signed and absolute), and the shared latents."""
        return self.comparison.summary() | {k: self.record[k] for k in ("pw_mcc", "shared")}

    def lists(self) -> Mapping[str, pd.DataFrame]:
        """Return the lists of shared pairs and of latents without a partner."""
        return self.comparison.lists()

    @property
    def meanings(self) -> PairLabels | None:
        return self.comparison.meanings

    def figures(self) -> Mapping[str, Figure]:
        return self.comparison.figures()

    def write_extra(self, folder: Path) -> None:
        """Write match.json."""
        write_json(folder / "match.json", self.record)

    @property
    def method(self) -> str:
        encoder = "" if self.record["matchings"]["encoder_signed"] is None else " and with encoder cosines"
        return f"{self.comparison.method} The matching was repeated with absolute cosines{encoder}."

    def __repr__(self) -> str:
        return self.comparison.first_screen(_in_words(self.record))

    def details(self) -> str:
        """Return the full report of the comparison, and the values and formulas of the record."""
        formulas = [f"{name}: {self.record['pw_mcc'][name]['formula']}" for name in ("signed", "absolute")]
        return "\n".join([self.comparison.details(), *_in_words(self.record), *formulas])


def match(
    a: Any,
    b: Any,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    max_gap: float = 0.0,
    time_budget: float = math.inf,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> MatchReport:
    """Return the PW-MCC of two dictionaries, signed and absolute, with the full matchings and the shared latents.

    PW-MCC = (1/K) Σ_{(i,j)∈π} S_ij with K = min(n, m), S_ij the cosine (or its absolute value) of unit decoder
    directions and π the optimal one-to-one matching: see `sae_geometry.matching.match`. MMCS in both directions, double
    counting allowed, is given for comparison. Encoders of the same width are matched too, which gives Paulo &
    Belrose's shared latents at every threshold and the share of latents with the same partner in both matchings.

    Args:
        a, b: anything that `compare` takes.
        thresholds: cosines in −1…1 above which latents count as shared; 0.7 is always included.
        max_gap: stop each matching once its relative optimality gap is proven to be at most this.
        time_budget: stop each matching after about this many seconds and report the gap reached.
        allow_mismatch: permit different models or hook points; the record says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; sweeps run there.
        provenance: the caller's provenance (versions, command, time), stored unchanged.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: dictionaries of different spaces, or a threshold out of range.

    Example:
        >>> import sae_geometry as sg
        >>> d = sg.Dictionary.from_decoder([[1.0, 0.0], [0.0, 2.0]], latent_axis=0, name="d")
        >>> sg.match(d, d).record["pw_mcc"]["signed"]["value"]
        1.0
    """
    levels = sorted({*(float(t) for t in thresholds), THRESHOLD})
    if not all(-1 <= t <= 1 for t in levels):
        raise ValueError(f"thresholds must be cosines in −1…1; got {[t for t in levels if not -1 <= t <= 1]}")
    how: dict[str, Any] = {"max_gap": max_gap, "time_budget": time_budget}

    def said(what: str) -> Callable[[Step], None] | None:
        return None if progress is None else lambda step: progress(f"{what}: {step.label}", step.share)

    with settings(executor=executor):
        c = compare(a, b, "optimal", allow_mismatch=allow_mismatch, progress=progress, **how)
        x, y = c.a, c.b.to(c.a.device)
        absolute = solve(x.directions, y.directions, "optimal", absolute=True, progress=said("|decoders|"), **how)
        encoder, missing = None, _why_no_encoders(x, y)
        if missing is None:
            encoder = solve(*pair_operands(x, y, "encoder"), "optimal", progress=said("encoders"), **how)
        by_chance = turned_pairs(x.directions, y.directions, "optimal", min(c.turns, 1), absolute=True, **how)
    shared = {"missing": missing} if encoder is None else _shared(c.assignment, encoder, y.n_latents, levels)
    record = _record(c, absolute, encoder, by_chance) | {"shared": shared, "provenance": dict(provenance or {})}
    record["parameters"] = {
        "method": "optimal",
        "thresholds": levels,
        "max_gap": max_gap,
        "time_budget_seconds": None if math.isinf(time_budget) else time_budget,
    }
    return MatchReport(c, record)


def _record(c: Comparison, absolute: Assignment, encoder: Assignment | None, by_chance: Expected) -> dict[str, Any]:
    a, b, signed, forth, back = c.a, c.b, c.assignment, c.nearest_a_to_b, c.nearest_b_to_a
    assert signed is not None
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "inputs": {"a": describe_input(a), "b": describe_input(b)},
        "caveats": list(c.caveats),
        "confounds": c.confounds.summary(),
        "pw_mcc": {"signed": _pw_mcc(signed), "absolute": _pw_mcc(absolute)},
        "mmcs": {"formula": _MMCS, "a_to_b": forth.mmcs, "b_to_a": back.mmcs},
        "chance": {
            "formula": _CHANCE,
            "a_to_b": forth.isotropic_chance,
            "b_to_a": back.isotropic_chance,
            "turned": {"a_to_b": _plain(forth.expected), "b_to_a": _plain(back.expected)},
            "own": {"a_to_b": _or_none(forth.own), "b_to_a": _or_none(back.own)},
            "one_to_one": {"signed": _plain(c.a_to_b.expected), "absolute": _plain(by_chance)},
        },
        "significant": {"a_to_b": forth.significance_summary(), "b_to_a": back.significance_summary()},
        "matchings": {
            "decoder_signed": _matching(a, b, signed, (forth, back)),
            "decoder_absolute": _matching(a, b, absolute),
            "encoder_signed": None if encoder is None else _matching(a, b, encoder),
        },
    }


def _in_words(record: Mapping[str, Any]) -> list[str]:
    """Return the lines that the record adds to a comparison: PW-MCC, certificate and shared latents."""
    certificate = record["matchings"]["decoder_signed"]["certificate"]
    state = "proven optimal" if certificate["certified"] else f"stopped: {certificate['stopped']}"
    chance = record["chance"]["one_to_one"]["absolute"]["mean_similarity"]
    lines = [
        f"  PW-MCC {record['pw_mcc']['signed']['value']:.4f} {state} (gap {certificate['relative_gap']:.0e}); absolute "
        f"{record['pw_mcc']['absolute']['value']:.4f}, by chance {'–' if chance is None else f'{chance:.3f}'}"
    ]
    shared = record["shared"]
    if "missing" in shared:
        return [*lines, f"  shared by decoder and encoder: not computed ({shared['missing']})"]
    at = next(point for point in shared["curve"] if point["threshold"] == THRESHOLD)
    return [*lines, f"  shared by decoder and encoder > 0.7: {at['both']:,} of {shared['n_pairs']:,}, "
            f"{at['both_same_partner']:,} with the same partner"]  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of `MatchReport.record`, as shipped in `sae_geometry/schemas`."""
    text = files("sae_geometry").joinpath("schemas/match.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _plain(expected: Expected) -> dict[str, Any]:
    return {k: _or_none(float(v)) for k, v in asdict(expected).items()} | {"turns": expected.turns}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pw_mcc(made: Assignment) -> dict[str, Any]:
    assert made.certificate is not None
    return {
        "value": min(made.total / made.n_matched, 1.0),
        "upper_bound": min(made.certificate.bound / made.n_matched, 1.0),
        "n_pairs": made.n_matched,
        "formula": _PW_MCC.format("|⟨a_i, b_j⟩|" if made.absolute else "⟨a_i, b_j⟩"),
    }


def _matching(
    a: Dictionary, b: Dictionary, made: Assignment, nearest: tuple[Matching, Matching] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return the record of a matching; with nearest matchings, each pair gets the larger q-value of both directions."""
    rows = np.flatnonzero(made.partner >= 0)
    cols, cosine = made.partner[rows], made.cosine[rows]
    ids_a, ids_b = a.latent_ids.cpu().numpy(), b.latent_ids.cpu().numpy()
    assert made.certificate is not None
    pairs = {
        "a_latent_id": ids_a[rows].tolist(),
        "b_latent_id": ids_b[cols].tolist(),
        "cosine": cosine.clip(-1.0, 1.0).tolist(),
    }
    if nearest is not None:
        forth, back = nearest
        pairs["q_value"] = np.maximum(forth.q_values_of(rows, cosine), back.q_values_of(cols, cosine)).tolist()
    return {
        "similarity": "absolute cosine" if made.absolute else "cosine",
        "n_matched": made.n_matched,
        "total": made.total,
        "certificate": scalars(made.certificate),
        "pairs": pairs,
        "unmatched_a": ids_a[made.partner < 0].tolist(),
        "unmatched_b": np.delete(ids_b, cols).tolist(),
    }


def _shared(decoder: Assignment | None, encoder: Assignment, n_columns: int, levels: list[float]) -> dict[str, Any]:
    assert decoder is not None
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
    if len({d.encoder_directions.shape[1] for d in (a, b) if d.encoder_directions is not None}) > 1:
        return "the encoders read spaces of different widths"
    if encoder_place_key(a) != encoder_place_key(b) and place_key(a) == place_key(b):
        return f"the encoders read different places, {encoder_hook(a) or 'unknown'} and {encoder_hook(b) or 'unknown'}"
    return None
