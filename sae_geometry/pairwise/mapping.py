"""Linear maps of dictionaries, and the cosines of mapped dictionaries before the map."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import counted
from sae_geometry.io.weights import plain_tensor
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.sources import as_dictionary

_ZERO = 1e-6  # minimum gain, relative to the map's largest, of a direction that is not sent to zero
_ROWS = 8192
_MOST_NAMED = 20


def mapped(dictionary: Any, matrix: Any, *, name: str) -> Dictionary:
    """Return a dictionary whose decoder directions are mapped linearly and normalized.

    Latent i becomes d_i M / ‖d_i M‖, in float64, rounded once to float32. Everything that is computed from the result,
    including significance, is computed after the map. Latents that the map sends to zero (‖d_i M‖ below 1e-6 of the
    largest singular value) are left out and listed in a note. Encoders do not follow the map and are dropped.

    Args:
        dictionary: anything that `compare` accepts.
        matrix: M [d_in, d_out], for example a Jacobian, a stitching map or a whitening matrix.
        name: name of the map, which every output records with the SHA-256 of its float64 values.

    Returns:
        Dictionary of d_out dimensions with unknown model and hook point; its `unmapped` is the original.

    Raises:
        ValueError: M has the wrong shape or values that are not finite, or sends every latent to zero.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> d = sg.Dictionary.from_decoder(np.eye(2), latent_axis=0, name="d")
        >>> sg.mapped(d, [[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]], name="m").latent_ids.tolist()
        [0]
    """
    dictionary = as_dictionary(dictionary)
    m = plain_tensor(matrix, "map").cpu()
    if m.ndim != 2 or m.shape[0] != dictionary.d_in or m.shape[1] == 0 or m.is_complex():
        hint = ": give its transpose" if m.ndim == 2 and m.shape[1] == dictionary.d_in else ""
        raise ValueError(
            f"a map of {dictionary.name!r} must be real numbers of shape [{dictionary.d_in:,}, d_out]; got "
            f"{m.dtype} of shape {list(m.shape)}{hint}"
        )
    m = m.to(torch.float64)
    if not bool(torch.isfinite(m).all()):
        raise ValueError(f"the map {name!r} has NaN or infinite entries; all entries must be finite")
    digest = hashlib.sha256(f"{list(m.shape)}".encode() + m.contiguous().numpy().astype("<f8").tobytes()).hexdigest()
    rows = dictionary.directions.cpu().to(torch.float64)
    images = torch.cat([part @ m for part in rows.split(_ROWS)])
    gain = torch.linalg.vector_norm(images, dim=1)
    there = gain > _ZERO * torch.linalg.matrix_norm(m, 2)
    gone = dictionary.latent_ids[~there].tolist()
    if not bool(there.any()):
        raise ValueError(f"the map {name!r} sends every latent of {dictionary.name!r} to zero")
    more = f" and {len(gone) - _MOST_NAMED:,} more" if len(gone) > _MOST_NAMED else ""
    named = ", ".join(map(str, gone[:_MOST_NAMED])) + more
    left_out = f"; {counted(len(gone), 'latent')} sent to zero and left out: {named}" if gone else ""
    note = f"mapped by {name!r}{left_out} (sha256 {digest[:16]}, {m.shape[0]:,} → {m.shape[1]:,})"
    kept = dictionary.select(there)
    return replace(
        kept,
        directions=(images[there] / gain[there, None]).to(torch.float32).to(dictionary.device),
        decoder_norms=(kept.decoder_norms.cpu() * gain[there]).to(torch.float32),
        encoder_directions=None,
        encoder_bias=None,
        decoder_bias=None if kept.decoder_bias is None else (kept.decoder_bias.double().cpu() @ m).to(torch.float32),
        hook_point=None,
        model=None,
        metadata=MappingProxyType(
            {**kept.metadata, "map": name, "map_sha256": digest, "n_sent_to_zero": len(gone), "sent_to_zero": named}
        ),
        notes=(*kept.notes, note),
        unmapped=dictionary,
    )


def unmapped(d: Dictionary) -> Dictionary:
    """Return a dictionary as it was before a linear map; the dictionary itself if it is not mapped."""
    return d if d.unmapped is None else d.unmapped


def may_share_a_space(a: Dictionary, b: Dictionary) -> bool:
    """Return whether two dictionaries may share a space, as far as their models and hook points are known."""
    try:
        require_same_space(a, b)
    except ValueError:
        return False
    return True


def plain_cosines(a: Dictionary, b: Dictionary, ids: np.ndarray, partners: np.ndarray) -> np.ndarray | None:
    """Return the cosines of latents `ids` of A with `partners` of B before a map, float64 [n]; nan for partner −1.

    The result is None if neither dictionary is mapped, or if they did not share a space before the map.
    """
    x, y = unmapped(a), unmapped(b)
    if (x is a and y is b) or not may_share_a_space(x, y):
        return None
    out = np.full(len(ids), np.nan)
    known = partners >= 0
    if known.any():
        left, right = (d.select(w[known]).directions.cpu().double() for d, w in ((x, ids), (y, partners)))
        out[known] = (left * right).sum(dim=1).clamp(-1, 1).numpy()
    return out
