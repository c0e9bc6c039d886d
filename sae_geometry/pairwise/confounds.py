"""Confound audit of two dictionaries: causes other than training that make them similar or dissimilar."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned, counted
from sae_geometry.nulls import expected_max_cosine
from sae_geometry.pairwise.grouping import kind_of, seed_of
from sae_geometry.pairwise.same_space import model_key, place_key

UNKNOWN = " unknown"  # suffix of a check whose data are missing
Verdict = Literal["same", "differs", "unknown", "no sign", "shared"]
_FAR_ABOVE = 6.0  # minimum excess in standard errors that shows a shared start
_SPARSER = 1.1  # maximum ratio of the sides' active latents per token that counts as equal sparsity
_BARELY_MOVED = 0.5  # maximum mean cosine to the initial directions of latents that have clearly moved
_CENTERED = 0.05  # maximum mean cosine between two dictionaries without a common mean direction
_SCALES = ("inputs", "normalize_activations", "activation_scale", "apply_b_dec_to_input", "decoder_norm")


@dataclass(frozen=True)
class Finding:
    """Result of one check for confounds.

    Attributes:
        a, b: the values of the two sides, in words.
        verdict: "same", "differs" or "unknown"; or "shared" or "no sign" if the check looks for a common cause.
        effect: effect on the comparison if the values differ, are shared, or are unknown.
        flagged: whether to report the finding before the results.
    """

    check: str
    a: str
    b: str
    verdict: Verdict
    effect: str
    flagged: bool

    @property
    def text(self) -> str:
        """Return the name of the check and its effect in one line."""
        return f"{self.check}{UNKNOWN if self.verdict == 'unknown' else ''}: {self.effect}"


@dataclass(frozen=True)
class ConfoundAudit:
    """Findings of the confound audit of one pair of dictionaries, in a fixed order."""

    a: str
    b: str
    findings: tuple[Finding, ...]

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """Return the findings to report before the results."""
        return tuple(f for f in self.findings if f.flagged)

    def finding(self, check: str) -> Finding:
        """Return the finding of one check, given its name."""
        return {f.check: f for f in self.findings}[check]

    def summary(self) -> list[dict[str, Any]]:
        """Return the findings as a JSON-ready list of dicts."""
        return [dict(vars(f)) for f in self.findings]

    def __str__(self) -> str:
        rows = [("checked", self.a, self.b, "verdict")]
        rows += [(f.check, f.a, f.b, f.verdict + (" !" if f.flagged else "")) for f in self.findings]
        lines = [f"  {line}" for line in aligned(rows)]
        for f in self.flagged:
            lines += textwrap.wrap(f"! {f.text}", 110, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(["Confounds", *lines])


def confound_audit(a: Dictionary, b: Dictionary) -> ConfoundAudit:
    """Return the findings of ten checks of `a` and `b`, from their models to the centering of their directions.

    A shared initialization makes latents with the same id similar, so cos(a_i, b_i) over common ids i is compared with
    cos(a_i, b_j) over different ids. If the first mean exceeds the second by more than six standard errors, both have
    the same initialization (or one was initialized from the other), and part of their similarity precedes training.

    Raises:
        ValueError: the dictionaries have different widths.
    """
    if a.d_in != b.d_in:
        raise ValueError(f"a confound audit needs dictionaries of the same width; got {a.d_in} and {b.d_in}")
    return ConfoundAudit(
        a.name,
        b.name,
        (
            _named("model", (a.model, b.model), model_key(a) == model_key(b),
                   "cosines between different models have no meaning"),
            _named("hook point", (_place(a), _place(b)), place_key(a) == place_key(b),
                   "cosines between hook points have no meaning unless one run was trained from the other's basis"),
            _scale(a, b),
            _widths(a, b),
            _sparsity(a, b),
            _dead(a, b),
            _weights(a, b),
            _start(a, b),
            _moved(a, b),
            _centering(a, b),
        ),
    )  # fmt: skip


def runs_table(runs: Sequence[Dictionary]) -> list[str]:
    """Return a table of the checks of many runs: one line for the values that all share, then one line per run."""
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
        "model": model_key(d) or "unknown",
        "hook point": _place(d) or "unknown",
        "kind": kind_of(d),
        "seed": "unknown" if seed is None else str(seed),
        "latents": f"{d.n_latents:,}",
        "latents, including dead": f"{d.alive.n_total:,}",
        "dead latents dropped by": _dead_words(d) or "unknown",
        "raw norm (median)": f"{float(np.median(d.decoder_norms.cpu().numpy())):.3g}",
        "mean direction": f"{float(mean.norm()):.3f}",
        "weights": d.fingerprint[:8],
    }


def _named(check: str, said: tuple[str | None, str | None], same: bool, effect: str) -> Finding:
    verdict: Verdict = "unknown" if None in said else "same" if same else "differs"
    return Finding(check, said[0] or "unknown", said[1] or "unknown", verdict, effect, verdict != "same")


def _place(d: Dictionary) -> str | None:
    """Return the hook point of the decoder directions, marked if the dictionary is a transcoder."""
    return f"{d.hook_point or 'unknown'} (transcoder)" if d.metadata.get("transcoder") else d.hook_point


def _scale(a: Dictionary, b: Dictionary) -> Finding:
    said = [{k: d.metadata[k] for k in _SCALES if k in d.metadata} for d in (a, b)]
    norms = [float(np.median(d.decoder_norms.cpu().numpy())) for d in (a, b)]
    differs = said[0] != said[1] or abs(math.log(max(norms[0], 1e-30) / max(norms[1], 1e-30))) > math.log(1.5)
    words = [
        f"median raw norm {n:.3g}" + "".join(f"; {k} {f'{v:.4g}' if isinstance(v, float) else v}" for k, v in s.items())
        for n, s in zip(norms, said, strict=True)
    ]
    effect = "directions are normalized, so a common factor changes nothing, but rescaling single dimensions would"
    turned = said[0].get("inputs") != said[1].get("inputs")
    if turned:
        effect = (
            "one dictionary was trained on z-scored inputs, so each of its coordinates is in units of that "
            "coordinate's spread, and its directions are tilted relative to the other's"
        )
    return Finding("normalization", words[0], words[1], "differs" if differs else "same", effect, turned)


def _widths(a: Dictionary, b: Dictionary) -> Finding:
    chances = [expected_max_cosine(d.n_latents, d.d_in) for d in (a, b)]
    effect = (
        "a wider target has nearer latents: isotropic directions would give "
        f"{chances[1]:.3f} (A → B) and {chances[0]:.3f} (B → A); compare chance-adjusted means"
    )
    ratio = max(a.n_latents, b.n_latents) / min(a.n_latents, b.n_latents)
    words = [counted(d.n_latents, "latent") for d in (a, b)]
    return Finding("width", words[0], words[1], "differs" if ratio > 1.1 else "same", effect, ratio > 1.1)


def _sparsity(a: Dictionary, b: Dictionary) -> Finding:
    found = [_l0(d) for d in (a, b)]
    words = ["unknown" if value is None else f"{what} {value:.4g}" for what, value in found]
    effect = "a sparser dictionary explains different features: they are coarser, and fewer of them are rare"
    values = [value for _, value in found if value is not None]
    if len(values) < 2:
        return Finding("sparsity", words[0], words[1], "unknown", effect, False)
    differs = max(values) > _SPARSER * min(values)
    return Finding("sparsity", words[0], words[1], "differs" if differs else "same", effect, differs)


def _l0(d: Dictionary) -> tuple[str, float | None]:
    """Return L0 as given by the source, else the k of a TopK SAE, else the sum of the firing frequencies."""
    for name, words in (("l0", "L0"), ("k", "k")):
        value = d.metadata.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return words, float(value)
    if d.frequency is None or not bool(torch.isfinite(d.frequency).all()):
        return "L0", None
    return "L0 (sum of frequencies)", float(d.frequency.sum()) or None


def _moved(a: Dictionary, b: Dictionary) -> Finding:
    """Check how far each dictionary is from its checkpoint at step 0, if available."""
    said = [d.metadata.get("cosine_to_start") for d in (a, b)]
    words = [
        f"mean cosine {s:.3f}" if isinstance(s, float) else _no_start(d) for s, d in zip(said, (a, b), strict=True)
    ]
    known = [s for s in said if isinstance(s, float)]
    if not known:
        return Finding("moved from start", words[0], words[1], "unknown", "", False)
    effect = (
        "latents are close to their directions at step 0: if both runs share a start, part of their similarity "
        "precedes training; otherwise, the null expectation is that of the untrained dictionaries"
    )
    return _sign("moved from start", words, effect, any(s > _BARELY_MOVED for s in known))


def _no_start(d: Dictionary) -> str:
    remote = d.metadata.get("start_not_fetched")
    return f"not fetched: {remote}" if remote else "no step-0 checkpoint"


def _dead(a: Dictionary, b: Dictionary) -> Finding:
    dropped = [d.alive.n_dropped_dead > 0 or d.alive.n_dead == 0 for d in (a, b)]
    alike = (a.alive.source, a.alive.n_tokens, dropped[0]) == (b.alive.source, b.alive.n_tokens, dropped[1])
    effect = (
        "latents that never fire keep their initial directions, which pulls a mean towards chance (or towards a "
        "shared start); count firing over the same number of tokens"
    )
    return _named("dead latents", (_dead_words(a), _dead_words(b)), alike, effect)


def _dead_words(d: Dictionary) -> str | None:
    if d.alive.n_dead is None:
        return None
    return d.alive.source + (f", {d.alive.n_tokens:,} tokens" if d.alive.n_tokens else ", tokens not stated")


def _weights(a: Dictionary, b: Dictionary) -> Finding:
    same = a.fingerprint == b.fingerprint
    effect = "both dictionaries have the same weights, so a comparison can show nothing else"
    words = [d.fingerprint[:8] for d in (a, b)]
    return Finding("weights", words[0], words[1], "same" if same else "differs", effect, same)


def _start(a: Dictionary, b: Dictionary) -> Finding:
    """Check whether latents with the same id resemble each other more than latents with different ids."""
    _, left, right = np.intersect1d(a.latent_ids.cpu().numpy(), b.latent_ids.cpu().numpy(), return_indices=True)
    if len(left) < 8:
        return Finding("start of training", "few ids in common", "few ids in common", "unknown", "", False)
    x, y = a.directions.cpu().numpy()[left], b.directions.cpu().numpy()[right]
    own = np.einsum("ij,ij->i", x, y, dtype=np.float64)
    # Each shift pairs latents with different ids; several shifts reduce the variance of the reference.
    others = np.concatenate([np.einsum("ij,ij->i", x, np.roll(y, s, axis=0), dtype=np.float64) for s in (1, 2, 3)])
    error = math.hypot(own.std(ddof=1), others.std(ddof=1)) / math.sqrt(len(own)) + 1e-12
    excess = float(own.mean() - others.mean())
    shared = excess > _FAR_ABOVE * error
    effect = (
        f"latents with the same id resemble each other (mean cosine {own.mean():.3f}; with different ids "
        f"{others.mean():.3f}; {excess / error:.0f} standard errors): both runs have the same initialization, or one "
        "was initialized from the other, so part of their similarity precedes training"
    )
    words = f"id to id {own.mean():+.3f}", f"other ids {others.mean():+.3f}"
    return _sign("start of training", words, effect, shared)


def _mean(d: Dictionary) -> Float64[Tensor, " d_in"]:
    """Return the mean direction, summed on the CPU, so that the bits do not depend on the device."""
    return d.directions.cpu().mean(dim=0).double()


def _centering(a: Dictionary, b: Dictionary) -> Finding:
    means = [_mean(d).numpy() for d in (a, b)]
    between = float(means[0] @ means[1])
    effect = (
        f"both dictionaries lean the same way: two random latents have a mean cosine of {between:+.3f}, which the "
        "turned dictionary takes into account and the isotropic expectation does not"
    )
    words = [f"mean direction of length {np.linalg.norm(m):.3f}" for m in means]
    return _sign("centering", words, effect, abs(between) > _CENTERED)


def _sign(check: str, words: Sequence[str], effect: str, shared: bool) -> Finding:
    return Finding(check, words[0], words[1], "shared" if shared else "no sign", effect if shared else "", shared)
