"""int8 screen on the CPU: integer products, several times faster than float32, certified by measured errors.

Shortlists are longer than in float32, because ε is a few hundredths. Their entries are re-scored in float32, best
first, until no other can be among the k best. `decide` then gets a float32 shortlist and a bound on all other scores.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.blocks import listing_bytes
from sae_geometry.kernels.loops.threads import in_parallel, one_torch_thread
from sae_geometry.kernels.screens.cpu import Lists, float32_epsilons, scan
from sae_geometry.kernels.screens.products import best_time, cpu_product, full_precision
from sae_geometry.kernels.screens.quantize import MAX_WIDTH, Quantized, Spread, hadamard_stages, int8_error, quantize
from sae_geometry.kernels.types import Shortlist, Task

PADS = (7, 15, 31, 63)  # Numbers of candidates listed beyond k. The first that suffices on a sample is used.
SAMPLE_ROWS = 96  # maximum number of rows sampled from each side
_SAMPLE_SCORES = 1 << 22  # maximum number of scores in a sample, so very large dictionaries give fewer rows
SAMPLE_CERTIFIES = 0.98  # minimum share of the sample that the shortlists must certify
_WORTH_IT = 2e10  # Below this number of multiplications, preparation costs more than it saves.
_FASTER = 0.7  # maximum time of int8 products, relative to float32, at which longer shortlists pay off
_REFINED_AT_ONCE = 4096


class Int8Scores:
    """Blocks of scores from integer products, with B held in int8 and A (unless it is B) quantized by row block."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.y = quantize(task.others, task.b_norms, task.threads)
        self.b_spread = Spread(self.y.residual, self.y.length, task.b_norms)
        unknown = torch.full((task.a.shape[0],), torch.inf, dtype=torch.float64)
        self.a_spread = self.b_spread if task.within else Spread(unknown, unknown.clone(), task.a_norms)
        self._bias = float32_bias(task.column_bias)
        self._own = threading.local()  # current row block of each thread

    def __call__(self, i0: int, i1: int, j0: int, j1: int, scratch: Tensor) -> Tensor:
        """Compute a block of scores. The spread of A is complete once every row block has been requested."""
        if getattr(self._own, "products", None) is None:
            self._own.products = torch.empty(self._task.blocks.size, dtype=torch.int32)
        buffers = self._own.products, scratch
        return _scores(self.row_block(i0, i1), self.y.part(j0, j1), self._bias[j0:j1], self._task.absolute, buffers)

    def row_block(self, i0: int, i1: int) -> Quantized:
        """Return rows i0…i1 of A in int8."""
        if self._task.within:
            return self.y.part(i0, i1)
        if getattr(self._own, "at", None) != (i0, i1):
            self._own.x = quantize(self._task.a[i0:i1], self._task.a_norms[i0:i1])
            self._own.at = (i0, i1)
            self.a_spread.residual[i0:i1] = self._own.x.residual
            self.a_spread.length[i0:i1] = self._own.x.length
        x: Quantized = self._own.x
        return x


@dataclass(frozen=True)
class Int8Screen:
    """int8 screen prepared for one task: operands, shortlist length, and the reason for choosing it."""

    scores: Int8Scores
    width: int
    why: str

    def __call__(self, task: Task) -> tuple[Shortlist, Shortlist | None]:
        """Screen the task for which this screen was prepared."""
        rows, cols = scan(task, self.scores, self.width)
        a, b, d, bias = self.scores.a_spread, self.scores.b_spread, task.a.shape[1], task.largest_bias
        row_fine, col_fine = float32_epsilons(task)
        found = refine(task, rows, int8_error(a, b, d, bias), row_fine, of_rows=True)
        return found, None if cols is None else refine(task, cols, int8_error(b, a, d), col_fine, of_rows=False)


def prepare_int8(task: Task, asked_for: bool = False) -> Int8Screen | str:
    """Prepare an int8 screen if it is likely to be faster than float32; otherwise return the reason as a phrase.

    The screen is tried on a sample of rows, and of columns if requested, and gets the shortest shortlists that certify
    98% of the sample. With `asked_for`, the screen is refused only if it cannot run.
    """
    n, m, d = task.a.shape[0], task.others.shape[0], task.a.shape[1]
    if not asked_for and n * m * d < _WORTH_IT:
        return "the product is small"
    ratio = int8_time()
    if ratio is None or d > MAX_WIDTH:
        return "the rows are too wide for int8" if ratio else "this build of PyTorch has no exact int8 product here"
    if not asked_for and ratio > _FASTER:
        return f"int8 products take {ratio:.2f} times as long as float32 products"
    padded = int(hadamard_stages(d)[-1, 0])
    both = task.columns and not task.within
    room = (
        task.memory
        - 8 * _SAMPLE_SCORES
        - padded * (m + task.threads * task.blocks.rows)
        - 12 * task.threads * task.blocks.size
    )
    widths = [
        task.k + pad
        for pad in PADS
        if listing_bytes(n, m, task.k, task.columns or task.within, task.threads, task.k + pad) <= room
    ]
    if not widths and not asked_for:
        return "the int8 copy does not fit the memory limit"
    scores = Int8Scores(task)
    if not _products_are_exact(task, scores):
        return "PyTorch's int8 product is not exact for this shape"
    needed = torch.cat([_needed(task, scores, True)] + ([_needed(task, scores, False)] if both else []))
    for width in widths:
        certified = float((needed < width).double().mean())
        if certified >= SAMPLE_CERTIFIES:
            why = f"int8 takes {ratio:.2f} times as long as float32 and certifies {certified:.1%} of a sample"
            return Int8Screen(scores, width, "asked for" if asked_for else why)
    if asked_for:
        return Int8Screen(scores, max(widths, default=task.k + PADS[0]), "asked for")
    return f"int8 shortlists of {widths[-1]} entries certify only {certified:.1%} of a sample"


def refine(task: Task, lists: Lists, coarse: Tensor, fine: Tensor, of_rows: bool) -> Shortlist:
    """Re-score int8 shortlists in float32, dropping entries that int8 proves not to be among the k best."""
    from sae_geometry.kernels.loops.int8 import look_again

    x, y = (task.a, task.others) if of_rows else (task.others, task.a)
    bias = float32_bias(task.column_bias)
    values, indices = lists
    last = torch.from_numpy(values[:, -1].astype(np.float64))
    beyond = torch.where(torch.from_numpy(indices[:, -1] >= 0), last + coarse, -torch.inf)

    def work(start: int) -> None:
        own = slice(start, start + _REFINED_AT_ONCE)
        bounds = coarse[own].numpy(), fine[own].numpy()
        look_again(x[own].numpy(), y.numpy(), values[own], indices[own], *bounds, bias, task.absolute, task.k)

    in_parallel(lambda _: work, range(0, len(values), _REFINED_AT_ONCE), task.threads)
    return Shortlist(torch.from_numpy(values), torch.from_numpy(indices.astype(np.int64)), fine, beyond)


def float32_bias(bias: Tensor | None) -> np.ndarray:
    """Return the bias as a float32 array for the compiled loops; empty if there is none."""
    return np.empty(0, dtype=np.float32) if bias is None else bias.to(torch.float32).numpy()


@cache
def int8_time() -> float | None:
    """Return the time of an int8 product relative to float32; None if int8 products are missing or inexact here.

    Processors without VNNI instructions add pairs of products in 16 bits, which saturate, so extremes are tested.
    """
    size = 512
    q = torch.randint(-127, 128, (size, size), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    q[:8] = 127
    q[8:16] = -127
    x, scratch = q.float(), torch.empty(size * size)
    product, _ = cpu_product()
    try:
        if not torch.equal(torch._int_mm(q, q.T).double(), q.double() @ q.double().T):
            return None
        with one_torch_thread(), full_precision():
            return best_time(lambda: torch._int_mm(q, q.T)) / best_time(lambda: product(x, x, scratch))
    except (AttributeError, RuntimeError, NotImplementedError):
        return None


def _scores(x: Quantized, y: Quantized, bias: np.ndarray, absolute: bool, buffers: tuple[Tensor, Tensor]) -> Tensor:
    """Compute the scores of quantized rows in two buffers, int32 for the products and float32 for the scores."""
    from sae_geometry.kernels.loops.int8 import scale_products

    shape = (x.q.shape[0], y.q.shape[0])
    products, scores = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
    torch._int_mm(x.q, y.q.T, out=products)
    scale_products(products.numpy(), x.scale.numpy(), y.scale.numpy(), bias, absolute, scores.numpy())
    return scores


def _products_are_exact(task: Task, scores: Int8Scores) -> bool:
    """Check the corners of the first block against float64, since a wrong product would void every bound."""
    x = scores.row_block(0, min(task.blocks.rows, len(task.a))).q
    y = scores.y.q[: task.blocks.cols]
    corners = [slice(0, 16), slice(-16, None)]
    product = torch._int_mm(x, y.T).double()
    return all(torch.equal(product[i, j], x[i].double() @ y[j].double().T) for i in corners for j in corners)


def _needed(task: Task, scores: Int8Scores, of_rows: bool) -> Tensor:
    """Return the number of partners that int8 cannot distinguish from the k best, for a sample of rows (or columns)."""
    mine, norms = (task.a, task.a_norms) if of_rows else (task.others, task.b_norms)
    bias = float32_bias(task.column_bias)
    n, m = len(mine), len(task.others) if of_rows else len(task.a)
    at = (
        torch.linspace(0, n - 1, min(SAMPLE_ROWS, n, max(16, _SAMPLE_SCORES // m)), dtype=torch.float64)
        .round()
        .to(torch.int64)
    )
    x = quantize(mine[at], norms[at])
    screened = torch.empty(len(at), m)

    def block(j0: int) -> None:
        j1 = min(j0 + task.blocks.rows, m)
        y = scores.y.part(j0, j1) if of_rows else scores.row_block(j0, j1)
        size = len(at) * (j1 - j0)
        buffers = torch.empty(size, dtype=torch.int32), torch.empty(size)
        screened[:, j0:j1] = _scores(x, y, bias[j0:j1], task.absolute, buffers)

    in_parallel(lambda _: block, range(0, m, task.blocks.rows), task.threads)
    if task.within:
        screened[torch.arange(len(at)), at] = -torch.inf
    spread = Spread(x.residual, x.length, norms[at])
    others = scores.b_spread if of_rows else scores.a_spread
    epsilon = int8_error(spread, others, mine.shape[1], task.largest_bias)
    # The exact k-th best score is near the screened k-th best, so all scores within ε of the latter must be listed.
    kth = screened.topk(min(task.k, m), dim=1).values[:, -1]
    return (screened >= (kth - epsilon)[:, None]).sum(dim=1)
