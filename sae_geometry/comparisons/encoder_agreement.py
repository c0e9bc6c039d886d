"""Encoder agreement: whether encoders confirm the nearest partners by decoder direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.comparisons.pair import compare_loaded
from sae_geometry.comparisons.pair_matchings import pair_operands
from sae_geometry.comparisons.pair_result import Comparison
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, or_dash, percent
from sae_geometry.io.frozen import read_only
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import sweep
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.matching.defaults import THRESHOLD, check_threshold
from sae_geometry.nulls import principal_axes, turned
from sae_geometry.pairwise.inputs import describe_input, distinct
from sae_geometry.results import methods
from sae_geometry.results.answer import PairAnswer
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = ("both high", "both low", "encoder only", "decoder only")
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
_FEWEST = 20  # minimum number of latents per frequency stratum


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(PairAnswer):
    """Nearest decoder partner in B of each latent of A, and the encoder cosine to that partner.

    Attributes:
        a, b: the dictionaries.
        threshold: similarity above which a pair counts as high.
        decoder: the comparison of decoder directions by nearest partners (double counting allowed).
        encoder: the same comparison of encoder directions.
        decoder_cosine: float64 [n], cosine of each latent of A to the nearest decoder direction in B.
        encoder_cosine: float64 [n], encoder cosine to that *same* latent of B.
        same_partner: bool [n], whether the decoder partner also has the nearest encoder direction.
        by_chance: shares and means computed against the turned B.
    """

    a: Dictionary
    b: Dictionary
    threshold: float
    decoder: Comparison
    encoder: Comparison
    decoder_cosine: np.ndarray
    encoder_cosine: np.ndarray
    same_partner: np.ndarray
    by_chance: Mapping[str, float]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return the caveats of both comparisons."""
        return tuple(dict.fromkeys((*self.decoder.caveats, *self.encoder.caveats)))

    @cached_property
    def group(self) -> np.ndarray:
        """Return each latent's index into `GROUPS`, by whether its decoder and encoder cosines exceed the threshold."""
        return read_only(_groups(self.decoder_cosine, self.encoder_cosine, self.threshold))

    @cached_property
    def alignment(self) -> np.ndarray | None:
        """Return the cosine between each latent's encoder and decoder, float64 [n]; None if their spaces differ.

        The cosine is near 1 for tied weights, and low if a latent reads and writes different directions.
        """
        d = self.a
        into, out = d.metadata.get("hook_point_in"), d.metadata.get("hook_point_out")
        transcodes = into is not None and out is not None and into != out  # Cosines across spaces are undefined.
        if d.encoder_directions is None or d.encoder_directions.shape != d.directions.shape or transcodes:
            return None
        return _cosines(d.directions.cpu().numpy(), d.encoder_directions.cpu().numpy())

    def counts(self, threshold: float | None = None) -> dict[str, int]:
        """Return the number of latents per group; `threshold` defaults to `self.threshold`."""
        level = self.threshold if threshold is None else threshold
        found = np.bincount(_groups(self.decoder_cosine, self.encoder_cosine, level), minlength=len(GROUPS))
        return dict(zip(GROUPS, found.tolist(), strict=True))

    def by_frequency(self, n_strata: int = 5) -> pd.DataFrame | None:
        """Return similarity by firing frequency, in strata of equal size; None if the frequency is unknown.

        Columns: lowest_frequency, highest_frequency, n, mean_decoder_cosine, low, high (95% over latents),
        mean_encoder_cosine, both_high.
        """
        if self.a.frequency is None:
            return None
        frequency = self.a.frequency.cpu().numpy()
        fires = np.flatnonzero(frequency > 0)
        n = max(1, min(n_strata, len(fires) // _FEWEST))
        rows = []
        for part in np.array_split(fires[np.argsort(frequency[fires], kind="stable")], n):
            if len(part) < 2:
                continue
            interval = interval_over_latents(self.decoder_cosine[part])
            rows.append(
                {
                    "lowest_frequency": frequency[part[0]],
                    "highest_frequency": frequency[part[-1]],
                    "n": len(part),
                    "mean_decoder_cosine": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "mean_encoder_cosine": float(self.encoder_cosine[part].mean()),
                    "both_high": float((self.group[part] == 0).mean()),
                }
            )
        return pd.DataFrame(rows)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent of A: run, latent_id, partner_run, partner_id, decoder_cosine, encoder_cosine (to
        that partner), q_value and significant (of the decoder cosine), encoder_partner_id, encoder_own_cosine,
        encoder_q_value, same_partner, group, alignment, frequency.
        """
        decoders, encoders = self.decoder.nearest_a_to_b, self.encoder.nearest_a_to_b
        n = self.a.n_latents
        frequency = self.a.frequency
        return pd.DataFrame(
            {
                "run": self.a.name,
                "latent_id": self.a.latent_ids.cpu().numpy(),
                "partner_run": self.b.name,
                "partner_id": decoders.partner,
                "decoder_cosine": self.decoder_cosine,
                "encoder_cosine": self.encoder_cosine,
                "q_value": decoders.q_value,
                "significant": decoders.significant,
                "encoder_partner_id": encoders.partner,
                "encoder_own_cosine": encoders.cosine,
                "encoder_q_value": encoders.q_value,
                "same_partner": self.same_partner,
                "group": np.array(GROUPS)[self.group],
                "alignment": np.full(n, np.nan) if self.alignment is None else self.alignment,
                "frequency": np.full(n, np.nan) if frequency is None else frequency.cpu().numpy(),
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the groups, means, shares, strata and caveats as a JSON-ready dict."""
        strata = self.by_frequency()
        return {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "partner": "the latent of b with the nearest (signed) decoder direction; several latents may share it",
            "threshold": self.threshold,
            "n": self.a.n_latents,
            "groups_mean": "both high: decoder and encoder cosine to the partner are above the threshold; "
            "decoder only, encoder only: only that cosine is; both low: neither is",
            "groups": self.counts(),
            "groups_by_threshold": {f"{t}": self.counts(t) for t in _LEVELS},
            "mean_decoder_cosine": float(self.decoder_cosine.mean()),
            "mean_encoder_cosine_to_the_same_partner": float(self.encoder_cosine.mean()),
            "chance_of_nearest_decoder": self.decoder.a_to_b.chance,
            "chance_of_nearest_encoder": self.encoder.a_to_b.chance,
            "share_with_the_same_partner": float(self.same_partner.mean()),
            "against_b_turned": dict(self.by_chance),
            "alignment_within_a": None if self.alignment is None else float(self.alignment.mean()),
            "by_frequency": None if strata is None else strata.to_dict("records"),
            "confounds": self.decoder.confounds.summary(),
            **label_summary(self.meanings),
            "caveats": list(self.caveats),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: agreement."""
        return {"agreement": self.to_pandas()}

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of latents and their nearest decoder partners; None if there are no labels."""
        return pair_labels(self.decoder.nearest_a_to_b.to_pandas(), self.dictionaries)

    def figures(self) -> Mapping[str, Figure]:
        """Return the figures to save: agreement and, if firing frequencies are known, frequency."""
        from sae_geometry import plots

        drawn = {"agreement": plots.agreement_figure(self)}
        if self.a.frequency is not None:
            drawn["frequency"] = plots.figure_of(lambda ax: plots.frequency_hexbin(self, ax), 3.7, 3.0)
        return drawn

    @property
    def method(self) -> str:
        return (
            f"For each latent of {self.a.name} we identified the nearest latent of {self.b.name} by "
            f"{methods.measure('decoder', True)} (several latents may share a partner), computed the cosine between "
            "the two encoder directions, and identified the latent with the nearest encoder direction. "
            f"Cosines above {self.threshold:g} count as high. {methods.EXACT} {methods.by_chance(self.b.name)} "
            "Decoders and encoders are turned by the same map if they have the same dimension."
        )

    @property
    def sentences(self) -> str:
        return (
            f"For {self.a.name} and {self.b.name}, {self._confirmed}. For "
            f"{percent(self.same_partner.mean())} of latents, the same partner has both the nearest decoder and the "
            f"nearest encoder; {percent(self.by_chance['same_partner'])} would be expected by chance."
        )

    @property
    def _confirmed(self) -> str:
        both, alone = (self.counts()[name] for name in ("both high", "decoder only"))
        share = f" ({percent(both / (both + alone))})" if both + alone else ""
        return f"encoders confirm {both:,} of {counted(both + alone, 'decoder partner')} > {self.threshold:g}{share}"

    def _lines(self) -> list[str]:
        counts = self.counts()
        means = [
            ("mean cosine", "", "by chance"),
            ("  decoder, to the nearest latent", f"{self.decoder_cosine.mean():.3f}",
             or_dash(self.decoder.a_to_b.chance, ".3f")),
            ("  encoder, to the same latent", f"{self.encoder_cosine.mean():.3f}",
             f"{self.by_chance['mean_encoder_cosine']:.3f}"),
        ]  # fmt: skip
        lines = [
            f"Encoder against decoder, {shown(self.a.name, 60)!r} → {shown(self.b.name, 60)!r}: "
            f"{counted(self.a.n_latents, 'latent')}",
            f"  {self._confirmed}",
            f"  {'  '.join(f'{name}: {c:,}' for name, c in counts.items())}",
            *(f"  {line}" for line in aligned(means)),
            f"  the decoder partner also has the nearest encoder: {percent(self.same_partner.mean())}   by chance "
            f"{percent(self.by_chance['same_partner'])}",
        ]
        if self.alignment is not None:
            lines.append(f"  encoder and decoder of the same latent of A: mean cosine {self.alignment.mean():.3f}")
        strata = self.by_frequency()
        if strata is not None:
            lines.append("  firing frequency: mean decoder cosine [95% over latents]")
            lines += [
                f"    {r.lowest_frequency:.1e} … {r.highest_frequency:.1e}  (n = {r.n:,}): "
                f"{r.mean_decoder_cosine:.3f} [{r.low:.3f}, {r.high:.3f}]"
                for r in strata.itertuples()
            ]
        return lines


def agreement(
    a: Any, b: Any, *, threshold: float = THRESHOLD, allow_mismatch: bool = False, progress: Progress | None = None
) -> Agreement:
    """Test whether encoders confirm the nearest decoder partner in B of each latent of A.

    With j(i) = argmax_j cos(dec a_i, dec b_j), compute the decoder cosine to j(i), the encoder cosine
    cos(enc a_i, enc b_j(i)), and whether argmax_j cos(enc a_i, enc b_j) = j(i). A pair with a high decoder cosine and
    a low encoder cosine writes the same direction but reads different ones.

    Args:
        a, b: anything that `compare` takes; both need encoders.
        threshold: cosine above which a pair counts as high.
        allow_mismatch: permit different models or hook points; every output then says so.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: no encoders, encoders of different widths, a threshold outside −1…1, or different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> r = sg.agreement("demo:local-seed0", "demo:local-seed1")
        >>> sum(r.counts().values()) == r.a.n_latents
        True
    """
    check_threshold(threshold)
    left, right = distinct([as_dictionary(a), as_dictionary(b)])
    how: Any = {"allow_mismatch": allow_mismatch, "progress": progress}
    decoders, encoders = compare_loaded(left, right, **how), compare_loaded(left, right, on="encoder", **how)
    partner = decoders.a_to_b.partner_row
    x, y = (rows.cpu().numpy() for rows in pair_operands(left, right, "encoder"))
    return Agreement(
        a=left,
        b=right,
        threshold=threshold,
        decoder=decoders,
        encoder=encoders,
        decoder_cosine=read_only(decoders.a_to_b.cosine),
        encoder_cosine=_cosines(x, y[partner]),
        same_partner=read_only(encoders.a_to_b.partner_row == partner),
        by_chance=_by_chance(left, right, threshold),
    )


def _by_chance(a: Dictionary, b: Dictionary, threshold: float) -> dict[str, float]:
    """Return the agreement with the turned B; decoders and encoders of the same width are turned by the same map.

    Using the same map preserves relations between a latent's encoder and decoder, such as tied weights.
    """
    dec, (of_a, enc) = b.directions.to(a.device), pair_operands(a, b, "encoder")
    together = dec.shape[1] == enc.shape[1]
    axes = principal_axes(torch.cat([dec, enc])) if together else principal_axes(dec)
    decoders = turned(dec, axes, seed=0)
    encoders = turned(enc, axes if together else principal_axes(enc), seed=0)
    nearest = sweep(a.directions, decoders, columns=False).rows
    partner = nearest.index[:, 0]
    own = sweep(of_a, encoders, columns=False).rows.index[:, 0]
    cosine = (of_a.double() * encoders[partner].double()).sum(dim=1).cpu().numpy()
    group = _groups(nearest.cosine[:, 0].cpu().numpy(), cosine, threshold)
    return {
        "mean_decoder_cosine": float(nearest.cosine[:, 0].mean()),
        "mean_encoder_cosine": float(cosine.mean()),
        "same_partner": float((own == partner).double().mean()),
        "both_high": float((group == 0).mean()),
    }


def _groups(decoder: np.ndarray, encoder: np.ndarray, threshold: float) -> np.ndarray:
    high_decoder, high_encoder = decoder > threshold, encoder > threshold
    return np.select([high_decoder & high_encoder, ~high_decoder & ~high_encoder, high_encoder], [0, 1, 2], default=3)


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return read_only(np.einsum("ij,ij->i", x, y, dtype=np.float64).clip(-1.0, 1.0))
