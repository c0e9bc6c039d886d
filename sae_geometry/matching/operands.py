"""Operands of a sweep: decoder directions, encoder directions, or both, as two tensors."""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.matching.defaults import On

Sides = tuple[Tensor, Tensor | None]


def operands(a: Sides, b: Sides, on: On) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Return two tensors whose inner products are the requested similarity, for any sweep or matching.

    * "decoder": S_ij = ⟨dec a_i, dec b_j⟩; "encoder": S_ij = ⟨enc a_i, enc b_j⟩.
    * "both": S_ij = (⟨dec a_i, dec b_j⟩ + ⟨enc a_i, enc b_j⟩) / 2, the mean of the two cosines. The rows are
      concatenated, [dec | enc], and A's are halved. Halving is exact in float32 (down to 2⁻¹²⁶), so the canonical
      score, the exact inner product of the operands rounded once to float64, *is* the exact mean rounded once, and
      needs no rescaling. With `absolute`, it is |mean of the cosines|, not the mean of their absolute values.

    Args:
        a, b: (decoder, encoder) of each side, float32 unit rows [n, d] and [m, d]; an encoder that is not needed may
            be None. An encoder row of zeros (a latent without an encoder) has cosine 0 with everything.
        on: "decoder", "encoder" or "both".

    Returns:
        The operand of A and the operand of B.

    Raises:
        ValueError: a required encoder is missing, or has a different number of rows than the decoder.
    """
    if on not in get_args(On):
        raise ValueError(f"on must be one of {', '.join(get_args(On))}; got {on!r}")
    if on == "decoder":
        return a[0], b[0]
    encoders = []
    for name, (decoder, encoder) in (("a", a), ("b", b)):
        if encoder is None:
            raise ValueError(f'on={on!r} needs an encoder on both sides, but {name} has none; use on="decoder"')
        if encoder.shape[0] != decoder.shape[0]:
            raise ValueError(f"{name} has {decoder.shape[0]:,} decoder rows and {encoder.shape[0]:,} encoder rows")
        encoders.append(encoder)
    if on == "encoder":
        return encoders[0], encoders[1]
    return torch.cat([a[0], encoders[0]], dim=1) * 0.5, torch.cat([b[0], encoders[1]], dim=1)
