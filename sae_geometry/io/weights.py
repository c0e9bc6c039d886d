"""Check the weights that a caller passes, and convert them to tensors and unit rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sae_geometry.io.formatting import counted

LatentAxis = Literal[0, 1]

# Rows are normalized in float64 in chunks of this many elements, so that a large decoder needs no second copy.
_CHUNK_ELEMENTS = 1 << 22
_MOST_REPEATED = 1 << 28  # maximum number of elements of a broadcast array; a float32 copy takes 1 GiB
MAX_NAMED = 8


def plain_tensor(values: Any, what: str) -> Tensor:
    """Return values as a plain tensor of real or complex numbers; unsigned integers become signed.

    Raises:
        ValueError: the values are masked, sparse, quantized, not numbers, of a type that torch lacks, or broadcast to a
            size that would not fit in memory.
    """
    _check_repeated(values, what)
    kind = f"{type(values).__name__} of {str(getattr(values, 'dtype', 'no type'))[:40]}"
    if np.ma.is_masked(values):
        raise ValueError(
            f"the {what} has {counted(int(np.ma.count_masked(values)), 'masked value')} instead of numbers: fill them "
            "(.filled(0)), or leave out those latents"
        )
    with suppress(TypeError, ValueError, OverflowError, RuntimeError):
        t = values.detach() if isinstance(values, Tensor) else _from_array(np.asarray(values))
        plain = t.layout == torch.strided and not (t.is_quantized or t.is_meta or t.is_nested or hasattr(t, "get_mask"))
        if plain and t.dtype in (torch.uint16, torch.uint32, torch.uint64):
            signed = t.to(torch.int64)
            if not signed.numel() or int(signed.min()) >= 0:
                return signed
        elif plain:
            t.reshape(-1)[:1].to(torch.complex128 if t.is_complex() else torch.float64)
            return t
    raise ValueError(f"the {what} must be a dense array of real numbers, not {kind}: convert it to float32 first")


def _check_repeated(values: Any, what: str) -> None:
    """Raise ValueError for an array that broadcasts a few values to so many that a copy would exhaust the memory."""
    if not isinstance(values, np.ndarray) and getattr(values, "layout", None) != torch.strided:
        return
    with suppress(RuntimeError):  # A nested tensor has no shape.
        n = math.prod(values.shape)
        steps = values.stride() if isinstance(values, Tensor) else [s // values.itemsize for s in values.strides]
        n_held = 1 + sum((length - 1) * abs(step) for length, step in zip(values.shape, steps, strict=True))
        if n > max(n_held, _MOST_REPEATED):
            raise ValueError(
                f"the {what} of shape {tuple(values.shape)} repeats {counted(n_held, 'value')} by broadcasting or "
                "expansion: give distinct rows, or a copy if this is intended"
            )


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise TypeError
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # We do not write to it.
        return torch.as_tensor(array.copy() if any(step < 0 for step in array.strides) else array)


def latents_first(weight: Any, latent_axis: int, what: str, argument: str) -> Tensor:
    """Return a weight as a floating-point tensor [n_latents, width].

    Raises:
        ValueError: the weight is empty, not real or not two-dimensional, or the axis (named `argument`) is not 0 or 1.
    """
    w = plain_tensor(weight, what)
    if w.ndim != 2:
        raise ValueError(f"the {what} must have two axes, latents and width; got shape {tuple(w.shape)}")
    if latent_axis not in (0, 1):
        raise ValueError(f"{argument} must be 0 ([n_latents, d_in]) or 1 ([d_in, n_latents]); got {latent_axis!r}")
    if not w.is_floating_point():
        if w.is_complex() or w.dtype == torch.bool:
            raise ValueError(f"the {what} must hold real numbers; got {w.dtype}")
        w = w.to(torch.float64)
    if 0 in w.shape:
        raise ValueError(f"the {what} is empty: shape {tuple(w.shape)}")
    return w if latent_axis == 0 else w.T


def unit_rows(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit float32 rows, float32 norms, and a mask (on the CPU) of rows that are zero or not finite.

    Each row is first divided by a power of two near its largest entry, which is exact, so that no norm underflows or
    overflows. Bad rows are returned as zeros.
    """
    n, d = w.shape
    out = torch.empty((n, d), dtype=torch.float32, device=w.device)
    norms = torch.empty(n, dtype=torch.float32)
    bad = torch.empty(n, dtype=torch.bool)
    step = max(1, _CHUNK_ELEMENTS // d)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        x = w[rows].to(torch.float64)
        peak = x.abs().amax(dim=1)
        _, exponent = torch.frexp(peak)
        wrong = ~torch.isfinite(peak) | (peak == 0)
        exponent = torch.where(wrong, torch.zeros_like(exponent), exponent)
        half = torch.div(exponent, 2, rounding_mode="floor")
        for part in (half, exponent - half):  # Divide in two steps, since 2¹⁰²⁴ overflows.
            x = torch.ldexp(x, -part[:, None].to(torch.float64))
        norm = torch.linalg.vector_norm(x, dim=1)
        unit = x / norm[:, None]
        out[rows] = torch.where(wrong[:, None], 0.0, unit).to(torch.float32)
        norms[rows] = torch.ldexp(norm, exponent.to(torch.float64)).to(torch.float32).cpu()
        bad[rows] = wrong.cpu()
    return out, norms, bad


def encoder_rows(
    encoder: Any, latent_axis: int, bad_decoder: Tensor, *, name: str, drop_bad: bool
) -> tuple[Tensor, list[str]]:
    """Return the unit rows of an encoder, with zeros for rows without a direction, and notes about those rows.

    Raises:
        ValueError: the encoder has another number of latents, or rows are not finite and `drop_bad` is false.
    """
    e, n = latents_first(encoder, latent_axis, "encoder weight", "encoder_latent_axis"), len(bad_decoder)
    if e.shape[0] != n:
        raise ValueError(
            f"the decoder has {counted(n, 'latent')} but the encoder, of shape {tuple(np.shape(encoder))}, has "
            f"{e.shape[0]:,} along axis {latent_axis}; pass encoder_latent_axis={1 - latent_axis} if that "
            "axis indexes its latents"
        )
    unit, _, bad = unit_rows(e)
    unit[bad] = 0.0
    rows = (bad & ~bad_decoder).nonzero().flatten()
    finite = torch.isfinite(e[rows.to(e.device)].to(torch.float64)).all(dim=1).cpu()
    broken, silent = rows[~finite].tolist(), rows[finite].tolist()
    if broken and not drop_bad:
        raise ValueError(
            f"{name!r} has encoder rows with NaN or inf: latents {some_ids(broken)}; pass "
            "drop_bad=True (--drop-bad) to set them to zero and record them"
        )
    notes = [f"{counted(len(silent), 'latent')} with a zero encoder row ({some_ids(silent)})"] if silent else []
    notes += [f"{counted(len(broken), 'encoder row')} with NaN or inf, zeroed ({some_ids(broken)})"] if broken else []
    return unit, notes


def bad_rows_message(name: str, w: Tensor, bad: Tensor) -> str:
    """Return the error message for decoder rows that have no direction."""
    rows = bad.nonzero().flatten()
    peak = w[rows.to(w.device)].to(torch.float64).abs().amax(dim=1)
    n_zero = int((peak == 0).sum())
    kinds = [f"{n_zero:,} zero"] if n_zero else []
    kinds += [f"{len(rows) - n_zero:,} with NaN or inf"] if len(rows) > n_zero else []
    return (
        f"{name!r} has decoder rows without a direction ({', '.join(kinds)}): latents {some_ids(rows.tolist())}; "
        "pass drop_bad=True (--drop-bad) to drop and record them"
    )


def some_ids(ids: Sequence[int]) -> str:
    """Format ids for a message: the first eight and the number of others."""
    shown = ", ".join(str(i) for i in ids[:MAX_NAMED])
    return shown + (f" and {len(ids) - MAX_NAMED:,} more" if len(ids) > MAX_NAMED else "")


def vector(values: Any, n: int, what: str, of: str) -> Tensor | None:
    """Return values as float32 [n] on the CPU, or None if they are None.

    Raises:
        ValueError: the values are not one real number per latent or coordinate (`of`).
    """
    return None if values is None else checked_vector(values, n, what, of).to(torch.float32)


def checked_vector(values: Any, n: int, what: str, of: str) -> Tensor:
    """Return values as a tensor [n] of their own type on the CPU; raise ValueError as `vector` does."""
    t = plain_tensor(values, what).cpu()
    if t.shape != (n,):
        raise ValueError(f"{what} must have one entry for each of the {n:,} {of}; got shape {tuple(t.shape)}")
    if t.is_complex():
        raise ValueError(f"{what} must hold real numbers; got {t.dtype}")
    return t
