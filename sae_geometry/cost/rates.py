"""Measure the rate of the sweep on this device, relative to its data sheet and to a matrix product alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sae_geometry.kernels.blocks import Blocks, device_blocks
from sae_geometry.kernels.screens.low_precision import rounded
from sae_geometry.kernels.screens.products import Product, cpu_product, full_precision, mm_product
from sae_geometry.kernels.screens.torch import block_product
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Precision, ScreenName, precision_of

WIDTH = 768
_LONG_ENOUGH = 0.1  # minimum seconds of the product alone for a reliable time
_ROUNDS = 3


@dataclass(frozen=True)
class Card:
    """Data sheet of a GPU, without sparsity: operations per second by operand type, and memory bandwidth in bytes/s.

    The driver may append a hyphen and a suffix to `name`.
    """

    name: str
    float32: float
    tf32: float
    fp16: float
    bandwidth: float


# These are the manufacturers' figures without sparsity; those for fp16 use float32 accumulation.
CARDS = (
    Card("NVIDIA A100-SXM4-40GB", 19.5e12, 156e12, 312e12, 1555e9),
    Card("NVIDIA A100-SXM4-80GB", 19.5e12, 156e12, 312e12, 2039e9),
    Card("NVIDIA A100-PCIE-40GB", 19.5e12, 156e12, 312e12, 1555e9),
    Card("NVIDIA A100 80GB PCIe", 19.5e12, 156e12, 312e12, 1935e9),
    Card("NVIDIA H100 80GB HBM3", 67e12, 494e12, 989e12, 3350e9),
    Card("NVIDIA H100 PCIe", 51e12, 378e12, 756e12, 2000e9),
    Card("NVIDIA H200", 67e12, 494e12, 989e12, 4800e9),
    Card("NVIDIA L4", 30.3e12, 60e12, 121e12, 300e9),
    Card("NVIDIA L40S", 91.6e12, 183e12, 362e12, 864e9),
    Card("NVIDIA A10", 31.2e12, 62.5e12, 125e12, 600e9),
    Card("NVIDIA RTX A6000", 38.7e12, 77.4e12, 154.8e12, 768e9),
    Card("NVIDIA GeForce RTX 3090", 35.6e12, 35.6e12, 71e12, 936e9),
    Card("NVIDIA GeForce RTX 4090", 82.6e12, 82.6e12, 165.2e12, 1008e9),
    Card("Tesla V100-SXM2", 15.7e12, 15.7e12, 125e12, 900e9),
    Card("Tesla T4", 8.1e12, 8.1e12, 65e12, 300e9),
)


@dataclass(frozen=True)
class Rate:
    """One measured rate.

    Attributes:
        of_roof: share of the roofline: the data sheet's minimum time over the measured time; None if no sheet is known.
        over_product: measured time divided by that of the product alone; None for a product alone.
    """

    name: str
    seconds: float
    operations: float
    of_roof: float | None
    over_product: float | None


@dataclass(frozen=True)
class Rates:
    """Rates for one device and one shape; `card` names the device's data sheet, None if it is unknown."""

    device: str
    card: str | None
    shape: tuple[int, int, int]
    lines: tuple[Rate, ...]

    def markdown(self) -> str:
        """Format the rates as a Markdown table for an issue."""
        n, m, d = self.shape
        limit = f"roof from the data sheet of {self.card}" if self.card else "no data sheet is known for this device"
        lines = [f"{self.device}; {n:,} × {m:,} × {d}, random directions, top-1 in both directions; {limit}", ""]
        lines += ["| | seconds | 10⁹ operations / s | share of roof | / product alone |", "|---|---:|---:|---:|---:|"]
        for r in self.lines:
            roof = "" if r.of_roof is None else f"{r.of_roof:.0%}"
            over = "" if r.over_product is None else f"{r.over_product:.2f}"
            lines.append(f"| {r.name} | {r.seconds:.4f} | {r.operations / 1e9:,.0f} | {roof} | {over} |")
        return "\n".join(lines)


def known_card(name: str) -> Card | None:
    """Return the data sheet of the card with this driver name; None if it is unknown."""
    return next((c for c in CARDS if name == c.name or name.startswith(c.name + "-")), None)


def roof_seconds(shape: tuple[int, int, int], precision: Precision, card: Card) -> float:
    """Return the minimum seconds to multiply [n, d] by [m, d]ᵀ on a card, limited by arithmetic or memory."""
    n, m, d = shape
    size = 2 if precision == "fp16" else 4
    operations = {"float32": card.float32, "tf32": card.tf32, "fp16": card.fp16}[precision]
    return max(2.0 * n * m * d / operations, float(size * (n + m) * d) / card.bandwidth)


def measure_rates(device: str, screens: Sequence[ScreenName], rows: int | None = None) -> Rates:
    """Time the product alone and the sweep with each screen on this device: best of three, interleaved.

    Each side has `rows` rows, by default enough for the product alone to take 0.1 s.
    """
    name = torch.cuda.get_device_properties(0).name if device == "cuda" else device
    card = known_card(name)
    n = rows or _enough_rows(device)
    a, b = _directions(n, 0, device), _directions(n, 1, device)
    alone, limit = _products_alone(a, b, [precision_of(s) for s in screens])
    runs = alone | {f"sweep, {s}": (precision_of(s), partial(sweep, a, b, screen=s, audit=False)) for s in screens}
    seconds = _best_times({label: run for label, (_, run) in runs.items()}, device)
    shape, lines = (n, n, WIDTH), []
    for label, (precision, _) in runs.items():
        took = seconds[label]
        of_roof = None if card is None else roof_seconds(shape, precision, card) / took
        over = None if label in alone else took / seconds[limit[precision]]
        lines.append(Rate(label, took, 2.0 * n * n * WIDTH / took, of_roof, over))
    return Rates(name, None if card is None else card.name, shape, tuple(lines))


def _products_alone(
    a: Tensor, b: Tensor, precisions: Sequence[Precision]
) -> tuple[dict[str, tuple[Precision, Callable[[], object]]], dict[Precision, str]]:
    """Return blockwise products by name, and for each precision the name of the product to compare a sweep with."""
    if a.device.type != "cpu":
        blocks = device_blocks(len(a), len(b), 1, 1 << 31)
        named = {p: f"{p} product alone" for p in precisions}
        return {named[p]: (p, partial(_on_device, a, b, p, blocks)) for p in named}, named
    fastest, name = cpu_product()
    products = {"torch.mm": mm_product, name: fastest}
    return {
        f"{label} alone": ("float32", partial(_on_cpu, a, b, product)) for label, product in products.items()
    }, dict.fromkeys(precisions, f"{name} alone")


def _on_cpu(a: Tensor, b: Tensor, product: Product) -> None:
    scratch = torch.empty(1024 * 2048)
    with full_precision():
        for rows in a.split(1024):
            for cols in b.split(2048):
                product(rows, cols, scratch)


def _on_device(a: Tensor, b: Tensor, precision: Precision, blocks: Blocks) -> None:
    x, y = rounded(a, precision).values, rounded(b, precision).values
    with full_precision():
        for rows in x.split(blocks.rows):
            for cols in y.split(blocks.cols):
                block_product(rows, cols, precision)


def _best_times(runs: dict[str, Callable[[], object]], device: str) -> dict[str, float]:
    found = dict.fromkeys(runs, float("inf"))
    for timed in range(_ROUNDS + 1):  # The first round includes compilation.
        for label, run in runs.items():
            took = _time(run, device)
            if timed:
                found[label] = min(found[label], took)
    return found


def _time(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _enough_rows(device: str) -> int:
    n, most = 1024, 65_536 if device == "cuda" else 8192
    while n < most:
        a = _directions(n, 0, device)
        alone, limit = _products_alone(a, a, ["float32"])
        run = alone[limit["float32"]][1]
        run()
        if _time(run, device) >= _LONG_ENOUGH:
            break
        n *= 2
    return n


def _directions(n: int, seed: int, device: str) -> Tensor:
    x = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).to(device)
