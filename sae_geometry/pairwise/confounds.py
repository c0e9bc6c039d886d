"""The confound audit: what else than learning could make two dictionaries alike, or unlike, before the numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned
from sae_geometry.nulls import expected_max_cosine
from sae_geometry.pairwise.grouping import kind_of, seed_of
from sae_geometry.pairwise.same_space import model_key

Verdict = Literal["same", "differs", "unknown", "no sign", "shared"]
_FAR_ABOVE = 6.0  # standard errors
_CENTRED = 0.05  # length of a mean direction below which it moves no cosine visibly
_SCALES = ("normalize_activations", "activation_scale", "apply_b_dec_to_input", "decoder_norm")


@dataclass(frozen=True)
class Finding:
    """One thing checked.

    Attributes:
        check: what was looked at.
        a, b: what either side says, in words.
        verdict: "same", "differs", "unknown", or for the start of training "shared" or "no sign".
        effect: what it does to the result where it differs, is shared, or is unknown.
        flagged: whether a reader should know before the numbers.
    """

    check: str
    a: str
    b: str
    verdict: Verdict
    effect: str
    flagged: bool


@dataclass(frozen=True)
class ConfoundAudit:
    """The findings for one pair of dictionaries, in a fixed order."""

    a: str
    b: str
    findings: tuple[Finding, ...]

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """Those a reader should know of before the numbers."""
        return tuple(f for f in self.findings if f.flagged)

    def finding(self, check: str) -> Finding:
        """The finding of one check.

        Raises:
            KeyError: there is no such check.
        """
        for found in self.findings:
            if found.check == check:
                return found
        raise KeyError(check)

    def summary(self) -> list[dict[str, Any]]:
        """JSON-ready."""
        return [dict(vars(f)) for f in self.findings]

    def __str__(self) -> str:
        rows = [("checked", self.a, self.b, "verdict")]
        rows += [(f.check, f.a, f.b, f.verdict + (" !" if f.flagged else "")) for f in self.findings]
        lines = [f"  {line}" for line in aligned(rows)]
        for f in self.flagged:
            lines += textwrap.wrap(f"! {f.check}: {f.effect}", 110, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(["Confounds", *lines])


def confound_audit(a: Dictionary, b: Dictionary) -> ConfoundAudit:
    """What else than learning could make `a` and `b` alike or unlike: model, hook point, scale, width, dead latents,
    weights, start of training, centring.

    The start of training is read from the ids: cos(a_i, b_i) over ids i in both, against cos(a_i, b_j) of ids that
    differ. Where the mean of the first is more than six standard errors above the second, the two were started alike
    (or one from the other), and part of their similarity was there before training.

    Args:
        a, b: dictionaries of one width.

    Raises:
        ValueError: dictionaries of different widths.

    Example:
        >>> import sae_geometry as sg
        >>> from sae_geometry.pairwise.confounds import confound_audit
        >>> confound_audit(sg.load("demo:local-seed0"), sg.load("demo:e2e-seed0")).finding("start of training").verdict
        'shared'
    """
    if a.d_in != b.d_in:
        raise ValueError(f"dictionaries of one width are audited; got {a.d_in} and {b.d_in}")
    return ConfoundAudit(
        a.name,
        b.name,
        (
            _named("model", model_key(a.model), model_key(b.model), "cosines between different models mean nothing"),
            _named(
                "hook point", a.hook_point, b.hook_point,
                "cosines between hook points mean nothing unless one was trained from the other's basis",
            ),
            _scale(a, b),
            _widths(a, b),
            _dead(a, b),
            _weights(a, b),
            _start(a, b),
            _centring(a, b),
        ),
    )  # fmt: skip


def runs_table(runs: Sequence[Dictionary]) -> list[str]:
    """What the audit of pairs looks at, of many runs: first what all of them share, then a line a run of the rest."""
    facts = [_facts(d) for d in runs]
    shared = {key: value for key, value in facts[0].items() if all(f[key] == value for f in facts)}
    own = [key for key in facts[0] if key not in shared]
    lines = ["of every run: " + "; ".join(f"{key} {value}" for key, value in shared.items())] if shared else []
    rows = [("run", *own)]
    rows += [(f"[{at}] {d.name}", *(f[k] for k in own)) for at, (d, f) in enumerate(zip(runs, facts, strict=True))]
    return [*lines, *(aligned(rows) if own else [])]


def _facts(d: Dictionary) -> dict[str, str]:
    seed, mean = seed_of(d), _mean(d)
    return {
        "model": model_key(d.model) or "unknown",
        "hook point": d.hook_point or "unknown",
        "kind": kind_of(d),
        "seed": "unknown" if seed is None else str(seed),
        "latents": f"{d.n_latents:,}",
        "of, dead ones counted": f"{d.alive.n_total:,}",
        "dead latents dropped by": _dead_words(d),
        "raw norm (median)": f"{float(np.median(d.decoder_norms.cpu().numpy())):.3g}",
        "mean direction": f"{float(mean.norm()):.3f}",
        "weights": d.fingerprint[:8],
    }


def _named(check: str, left: str | None, right: str | None, effect: str) -> Finding:
    verdict: Verdict = "unknown" if left is None or right is None else "same" if left == right else "differs"
    return Finding(check, left or "unknown", right or "unknown", verdict, effect, verdict != "same")


def _scale(a: Dictionary, b: Dictionary) -> Finding:
    """Raw decoder norms, and what the sources say of activation scaling."""
    said = [{k: d.metadata[k] for k in _SCALES if k in d.metadata} for d in (a, b)]
    norms = [float(np.median(d.decoder_norms.cpu().numpy())) for d in (a, b)]
    differs = said[0] != said[1] or abs(math.log(max(norms[0], 1e-30) / max(norms[1], 1e-30))) > math.log(1.5)
    words = [
        "; ".join(
            [
                f"median raw norm {n:.3g}",
                *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in s.items()),
            ]
        )
        for n, s in zip(norms, said, strict=True)
    ]
    effect = "directions are normalised, so a common factor changes nothing; a rescaling of single dimensions would"
    return Finding("normalisation", words[0], words[1], "differs" if differs else "same", effect, False)


def _widths(a: Dictionary, b: Dictionary) -> Finding:
    chances = [expected_max_cosine(d.n_latents, d.d_in) for d in (a, b)]
    effect = (
        "the nearest of more latents is nearer: isotropic directions would give "
        f"{chances[1]:.3f} one way and {chances[0]:.3f} the other; compare means corrected for chance"
    )
    ratio = max(a.n_latents, b.n_latents) / min(a.n_latents, b.n_latents)
    words = [f"{d.n_latents:,} latents" for d in (a, b)]
    return Finding("width", words[0], words[1], "differs" if ratio > 1.1 else "same", effect, ratio > 1.1)


def _dead(a: Dictionary, b: Dictionary) -> Finding:
    words = [_dead_words(d) for d in (a, b)]
    unknown = any(d.alive.n_dead is None for d in (a, b))
    dropped = [d.alive.n_dropped_dead > 0 or d.alive.n_dead == 0 for d in (a, b)]
    alike = (a.alive.source, a.alive.n_tokens, dropped[0]) == (b.alive.source, b.alive.n_tokens, dropped[1])
    effect = (
        "latents that never fire keep the direction they started with and pull a mean towards chance (or towards a "
        "shared start); count firing over the same number of tokens"
    )
    verdict: Verdict = "unknown" if unknown else "same" if alike else "differs"
    return Finding("dead latents", words[0], words[1], verdict, effect, verdict != "same")


def _dead_words(d: Dictionary) -> str:
    if d.alive.n_dead is None:
        return "unknown"
    return d.alive.source + (f", {d.alive.n_tokens:,} tokens" if d.alive.n_tokens else ", tokens not stated")


def _weights(a: Dictionary, b: Dictionary) -> Finding:
    same = a.fingerprint == b.fingerprint
    effect = "these are the same weights: a comparison says nothing but that"
    words = [d.fingerprint[:8] for d in (a, b)]
    return Finding("weights", words[0], words[1], "same" if same else "differs", effect, same)


def _start(a: Dictionary, b: Dictionary) -> Finding:
    """Whether latent i resembles latent i more than it resembles latent j."""
    _, left, right = np.intersect1d(a.latent_ids.cpu().numpy(), b.latent_ids.cpu().numpy(), return_indices=True)
    if len(left) < 8:
        return Finding("start of training", "few ids in common", "few ids in common", "unknown", "", False)
    x, y = a.directions.cpu().numpy()[left], b.directions.cpu().numpy()[right]
    own = np.einsum("ij,ij->i", x, y, dtype=np.float64)
    # Shifts pair each latent with others; several of them make the yardstick steady.
    others = np.concatenate([np.einsum("ij,ij->i", x, np.roll(y, s, axis=0), dtype=np.float64) for s in (1, 2, 3)])
    error = math.hypot(own.std(ddof=1), others.std(ddof=1)) / math.sqrt(len(own)) + 1e-12
    excess = float(own.mean() - others.mean())
    shared = excess > _FAR_ABOVE * error
    effect = (
        f"latent i of one resembles latent i of the other (mean cosine {own.mean():.3f}; of other ids "
        f"{others.mean():.3f}; {excess / error:.0f} standard errors): started alike, or one from the other; that part "
        "of the similarity was there before training"
    )
    words = f"id to id {own.mean():+.3f}", f"other ids {others.mean():+.3f}"
    return Finding(
        "start of training", words[0], words[1], "shared" if shared else "no sign", effect if shared else "", shared
    )


def _mean(d: Dictionary) -> Float64[Tensor, " d_in"]:
    """The mean direction, summed up on the CPU, so that no device changes its last bit."""
    return d.directions.cpu().double().mean(dim=0)


def _centring(a: Dictionary, b: Dictionary) -> Finding:
    means = [_mean(d).numpy() for d in (a, b)]
    lengths = [float(np.linalg.norm(m)) for m in means]
    between = float(means[0] @ means[1])
    effect = (
        f"both dictionaries lean the same way: two latents at random have a cosine of {between:+.3f}; the "
        "covariance-matched chance takes it into account, the isotropic one does not"
    )
    leaning = abs(between) > _CENTRED
    words = [f"mean direction of length {length:.3f}" for length in lengths]
    return Finding(
        "centring", words[0], words[1], "shared" if leaning else "no sign", effect if leaning else "", leaning
    )
