"""Features followed through the layers of one model: the edges between layers and the chains they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from sae_geometry.comparisons.flow_result import BASIS, Flow
from sae_geometry.comparisons.flow_step import Step
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import counted, few
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.matching import match
from sae_geometry.matching.defaults import DISCOVERY_RATE, default_matching
from sae_geometry.nulls import LISTED, How, pair_controls, turned_controls
from sae_geometry.pairwise.inputs import distinct, several
from sae_geometry.pairwise.mapping import mapped, unmapped
from sae_geometry.pairwise.matching_result import Matching, nearest_matching, one_to_one_matching
from sae_geometry.pairwise.same_space import require_same_stream
from sae_geometry.sources import as_dictionary
from sae_geometry.sources.listing import expanded

On = Literal["writes", "reads"]
WRITES: Final = "writes"
READS: Final = "reads"
THRESHOLD = {WRITES: 0.5, READS: 0.0}


def flow(
    layers: Any,
    *,
    on: On = WRITES,
    threshold: float | None = None,
    false_discovery_rate: float = DISCOVERY_RATE,
    fold: bool = False,
    maps: Sequence[tuple[str, Any]] = (),
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> Flow:
    """Follow features through the layers of one model.

    Between consecutive layers, a latent is linked to the nearest latent in the next layer, the nearest in the previous
    layer, and its one-to-one partner (optimal up to 4,096 latents per side, greedy beyond). A link is an *edge* if its
    cosine is at least `threshold` and beats the controls of `compare` at the false discovery rate. One-to-one edges
    *continue* a latent; other edges are *splits* if they come from a latent's nearest in the previous layer, and
    *merges* if they lead to its nearest in the next. A latent with no edge to the next layer *dies*; a latent with no
    edge from the previous layer is *born*. A *chain* is a path of continuing edges.

    Args:
        layers: the dictionaries, first layer first, as anything that `compare` takes; an address may be a pattern like
            `hf://org/repo/layers.{0..11}`.
        on: "writes" compares decoder directions; "reads" takes the cosine of a layer's decoder directions with the next
            layer's encoder directions: the virtual weight, which shows whether that layer reads what this one writes.
        threshold: minimum cosine of an edge; None means 0.5 for "writes" and 0 for "reads".
        false_discovery_rate: false discovery rate per step and direction, in (0, 1).
        fold: multiply decoder norms by the latents' thresholds (`Dictionary.folded`) before norm ratios and squared
            differences are computed.
        maps: the name and matrix [d_in, d_out] of one linear map per step, such as a Jacobian, applied to the earlier
            layer (`mapped`) in that step only. To map all layers, pass mapped dictionaries.
        allow_mismatch: permit different models and sites outside the residual stream; every output then says so.
        progress: called with the current step and its completed fraction.

    Returns:
        Flow. All layers are in memory at once.

    Raises:
        ValueError: fewer than two layers, different models or widths, no encoders for "reads", no thresholds to fold,
            or not one map per step.

    Example:
        >>> import sae_geometry as sg
        >>> f = sg.flow(["demo:local-seed0", "demo:local-seed1"])
        >>> f.steps[0].n_continuing + f.steps[0].n_splits + f.steps[0].n_births == f.layers[1].n_latents
        True
    """
    if on not in (WRITES, READS):
        raise ValueError(f"on must be 'writes' or 'reads'; got {on!r}")
    limit = THRESHOLD[on] if threshold is None else threshold
    if not -1 <= limit <= 1 or not 0 < false_discovery_rate < 1:
        raise ValueError(
            f"threshold must be in [-1, 1] and false_discovery_rate in (0, 1); got {limit:g} and "
            f"{false_discovery_rate:g}"
        )
    given = [one for layer in several(layers) for one in (expanded(layer) if isinstance(layer, str) else [layer])]
    if len(given) < 2:
        raise ValueError(f"a flow needs at least two layers; got {len(given)}")
    made = distinct([as_dictionary(one) for one in given])
    made = [d.folded() for d in made] if fold else made
    if maps and len(maps) != len(made) - 1:
        raise ValueError(f"a flow needs one map per step, {len(made) - 1} in all; got {len(maps)}")
    caveats = [BASIS, *(f"{d.name}: {note}" for d in made for note in d.notes)]
    for a, b in pairwise(made):
        caveats += require_same_stream(unmapped(a), unmapped(b), allow_mismatch)
    if on == READS:
        caveats.append("reads: encoders and decoders cannot be controls for each other, so the only control is "
                       "the turned encoders of the next layer")  # fmt: skip
    steps = []
    for at, (a, b) in enumerate(pairwise(made)):

        def tick(name: str, share: float, at: int = at) -> None:
            if progress is not None:
                progress(f"layer {at} to {at + 1} · {name}", (at + share) / (len(made) - 1))

        source = mapped(a, maps[at][1], name=maps[at][0]) if maps else a
        caveats += [f"{a.name}: {source.notes[-1]}"] if maps else []
        step = _step(source, b.to(a.device), on, limit, false_discovery_rate, caveats, tick)
        steps.append(_of_all_rows(step, source, a) if maps else step)
    return Flow(tuple(made), tuple(steps), on, limit, false_discovery_rate, fold, few(caveats))


def _step(
    a: Dictionary, b: Dictionary, on: str, threshold: float, rate: float, caveats: list[str], progress: Progress
) -> Step:
    x, y = a.directions, _read_rows(a, b) if on == READS else b.directions
    if a.d_in != y.shape[1]:
        raise ValueError(
            f"{a.name!r} has {a.d_in:,} dimensions after the map but {b.name!r} has {y.shape[1]:,}, so cosines between "
            "them are undefined; a map must have shape [d_in, d_out]"
        )
    swept = listing_sweep(x, y, LISTED, progress=lambda share: progress("similarities", share))
    assert swept.cols is not None
    controls = (turned_controls if on == READS else pair_controls)(x, y, swept, How(turns=1), None)
    forth = nearest_matching(a, b, swept.rows, controls[0])
    back = nearest_matching(b, a, swept.cols, controls[1])
    method = default_matching(len(x), len(y))
    # Pairs below the threshold are not edges, so they must not compete with pairs above it.
    lowest = threshold if method == "optimal" else None
    found = match(x, y, method, nearest=swept, min_similarity=lowest).completed()
    paired = one_to_one_matching(forth, back, method, found.partner, found.cosine)
    for m in (forth, back):
        if not _enough(m, rate):
            caveats.append(f"{m.source} → {m.target}: {counted(m.n_latents, 'latent')} are too few for any to be "
                           "significant, so edges depend on the threshold alone")  # fmt: skip
    return Step(
        one_to_one=np.where(_holds(paired, threshold, rate), paired.partner_row, -1),
        one_to_one_cosine=paired.cosine,
        one_to_one_q=paired.q_value,
        forward=np.where(_holds(forth, threshold, rate), forth.partner_row, -1),
        forward_cosine=forth.cosine,
        forward_q=forth.q_value,
        backward=np.where(_holds(back, threshold, rate), back.partner_row, -1),
        backward_cosine=back.cosine,
        backward_q=back.q_value,
        method=method,
    )


def _of_all_rows(step: Step, source: Dictionary, a: Dictionary) -> Step:
    """Expand the edges of a mapped layer to all its latents; a latent that the map sends to zero has no edge."""
    rows = np.flatnonzero(np.isin(a.latent_ids.cpu().numpy(), source.latent_ids.cpu().numpy()))

    def spread(values: np.ndarray, missing: int | float) -> np.ndarray:
        out = np.full(a.n_latents, missing, dtype=values.dtype)
        out[rows] = values
        return out

    return replace(
        step,
        one_to_one=spread(step.one_to_one, -1),
        one_to_one_cosine=spread(step.one_to_one_cosine, np.nan),
        one_to_one_q=spread(step.one_to_one_q, np.nan),
        forward=spread(step.forward, -1),
        forward_cosine=spread(step.forward_cosine, np.nan),
        forward_q=spread(step.forward_q, np.nan),
        backward=np.where(step.backward < 0, -1, rows[step.backward]),
        map=MappingProxyType({key: source.metadata[key] for key in ("map", "map_sha256", "n_sent_to_zero")}),
    )


def _enough(m: Matching, rate: float) -> bool:
    """Return whether there are enough latents for any of them to be significant."""
    return m.n_latents * rate >= m.controls.ratio


def _holds(m: Matching, threshold: float, rate: float) -> np.ndarray:
    similar = np.nan_to_num(m.cosine, nan=-np.inf) >= threshold
    return similar & ((m.q_value <= rate) | (not _enough(m, rate)))


def _read_rows(a: Dictionary, b: Dictionary) -> Tensor:
    """Return the encoder directions of the next layer, b.

    Raises:
        ValueError: b has no encoders, or they read a space of a different width.
    """
    rows = b.encoder_directions
    if rows is None:
        raise ValueError(f'{b.name!r} has no encoder, but on="reads" needs one; use on="writes"')
    if rows.shape[1] != a.d_in:
        raise ValueError(
            f"the encoder of {b.name!r} reads {rows.shape[1]:,} dimensions but {a.name!r} writes {a.d_in:,}, so it "
            "cannot read that stream"
        )
    return torch.as_tensor(rows)
