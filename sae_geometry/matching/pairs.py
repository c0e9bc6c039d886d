"""Scores of pairs and subsets of rows, given by numpy indices into tensors on any device."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots


def pair_cosines(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    rows: Int64[np.ndarray, " pairs"],
    cols: Int64[np.ndarray, " pairs"],
) -> Float64[np.ndarray, " pairs"]:
    """Return the canonical score ⟨a[rows[p]], b[cols[p]]⟩ of every pair p."""
    where = [torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(a.device) for x in (rows, cols)]
    return np.asarray(exact_dots(a.detach(), b.detach(), where[0], where[1]).cpu().numpy(), dtype=np.float64)


def partner_cosines(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], partner: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the canonical score of every row with its partner; nan for a row without a partner."""
    out = np.full(partner.shape[0], np.nan)
    rows = np.flatnonzero(partner >= 0)
    out[rows] = pair_cosines(a, b, rows, partner[rows])
    return out


def take_rows(x: Float[Tensor, "n d"], rows: Int64[np.ndarray, " some"]) -> Float[Tensor, "some d"]:
    """Return x[rows] for ascending rows, without a copy if these are all rows."""
    return x if rows.size == x.shape[0] else x[torch.from_numpy(rows).to(x.device)]
