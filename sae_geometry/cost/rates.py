"""Measured rate of the sweep on this device, relative to its data sheet and to a matrix product alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sae_geometry.kernels.blocks import Blocks, device_blocks
from sae_geometry.kernels.screens.low_precision import Precision, rounded
from sae_geometry.kernels.screens.products import Product, cpu_product, full_precision, mm_product
from sae_geometry.kernels.screens.torch import block_product
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import ScreenName

WIDTH = 768
_LONG_ENOUGH = 0.1  # minimum seconds of the product alone, for a meaningful time
_ROUNDS = 3


@dataclass(frozen=True)
class Card:
    """Data sheet of a GPU, without sparsity: operations per second by operand type, and memory bandwidth in bytes/s.

    `name` is the driver's name, without anything after a hyphen.
    """

    name: str
    float32: float
    tf32: float
    fp16: float
    bandwidth: float

    def operations(self, precision: Precision) -> float:
        """Return operations per second with operands of this precision."""
        return {"float32": self.float32, "tf32": self.tf32, "fp16": self.fp16}[precision]


def _card(name: str, float32: float, tf32: float, fp16: float, gigabytes: float) -> Card:
    return Card(name, float32 * 1e12, tf32 * 1e12, fp16 * 1e12, gigabytes * 1e9)


# From the makers' data sheets, without sparsity; fp16 with float32 accumulation.
CARDS = (
    _card("NVIDIA A100-SXM4-40GB", 19.5, 156.0, 312.0, 1555.0),
    _card("NVIDIA A100-SXM4-80GB", 19.5, 156.0, 312.0, 2039.0),
    _card("NVIDIA A100-PCIE-40GB", 19.5, 156.0, 312.0, 1555.0),
    _card("NVIDIA A100 80GB PCIe", 19.5, 156.0, 312.0, 1935.0),
    _card("NVIDIA H100 80GB HBM3", 67.0, 494.0, 989.0, 3350.0),
    _card("NVIDIA H100 PCIe", 51.0, 378.0, 756.0, 2000.0),
    _card("NVIDIA H200", 67.0, 494.0, 989.0, 4800.0),
    _card("NVIDIA L4", 30.3, 60.0, 121.0, 300.0),
    _card("NVIDIA L40S", 91.6, 183.0, 362.0, 864.0),
    _card("NVIDIA A10", 31.2, 62.5, 125.0, 600.0),
    _card("NVIDIA RTX A6000", 38.7, 77.4, 154.8, 768.0),
    _card("NVIDIA GeForce RTX 3090", 35.6, 35.6, 71.0, 936.0),
    _card("NVIDIA GeForce RTX 4090", 82.6, 82.6, 165.2, 1008.0),
    _card("Tesla V100-SXM2", 15.7, 15.7, 125.0, 900.0),
    _card("Tesla T4", 8.1, 8.1, 65.0, 300.0),
)


@dataclass(frozen=True)
class Rate:
    """One measured rate.

    of_roof: minimum time by the data sheet over measured time; None for a device without a known data sheet.
    over_product: measured time over that of the product alone with the same operands; None for products alone.
    """

    name: str
    seconds: float
    operations: float
    of_roof: float | None
    over_product: float | None


@dataclass(frozen=True)
class Rates:
    """All rates for one device and one shape. `card` is the name of the data sheet, or None."""

    device: str
    card: str | None
    shape: tuple[int, int, int]
    lines: tuple[Rate, ...]

    def markdown(self) -> str:
        """Format the rates as a Markdown table for an issue."""
        n, m, d = self.shape
        limit = (
            f"roof from the data sheet of {self.card}" if self.card else "no data sheet of this device is known here"
        )
        lines = [f"{self.device}; {n:,} × {m:,} × {d}, random directions, top-1 both ways; {limit}", ""]
        lines += ["| | seconds | 10⁹ operations / s | share of roof | / product alone |", "|---|---:|---:|---:|---:|"]
        for r in self.lines:
            roof = "" if r.of_roof is None else f"{r.of_roof:.0%}"
            over = "" if r.over_product is None else f"{r.over_product:.2f}"
            lines.append(f"| {r.name} | {r.seconds:.4f} | {r.operations / 1e9:,.0f} | {roof} | {over} |")
        return "\n".join(lines)


def known_card(name: str) -> Card | None:
    """Return the card with this driver name, or None.

    Example:
        >>> known_card("NVIDIA L40S").bandwidth
        864000000000.0
        >>> known_card("NVIDIA L400")
    """
    return next((c for c in CARDS if name == c.name or name.startswith(c.name + "-")), None)


def roof_seconds(shape: tuple[int, int, int], precision: Precision, card: Card) -> float:
    """Return the minimum time to multiply [n, d] by [m, d]ᵀ on a card: the longer of arithmetic and reading both once.

    Example:
        >>> round(1e3 * roof_seconds((46_080, 46_080, 768), "fp16", known_card("NVIDIA H100 80GB HBM3")), 1)
        3.3
    """
    n, m, d = shape
    size = 2 if precision == "fp16" else 4
    return max(2.0 * n * m * d / card.operations(precision), float(size * (n + m) * d) / card.bandwidth)


def measure_rates(device: str, screens: Sequence[tuple[ScreenName, Precision]], rows: int | None = None) -> Rates:
    """Time the product alone and the sweep with each screen on this device: best of three, interleaved.

    Args:
        screens: screens to time, each with the precision of its products (float32 for int8).
        rows: rows per side; by default enough for the product alone to take 0.1 s.
    """
    name, card = device, None
    if device == "cuda":
        name = torch.cuda.get_device_properties(0).name
        card = known_card(name)
    n = rows or _enough_rows(device)
    a, b = _directions(n, 0, device), _directions(n, 1, device)
    alone, limit = _products_alone(a, b, [p for _, p in screens])
    runs = dict(alone)
    for screen, precision in screens:
        runs[f"sweep, {screen}"] = precision, partial(sweep, a, b, screen=screen, audit=False)
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
    """Return blockwise products by name, each block overwriting the last, and the limiting one per precision."""
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
    for timed in range(_ROUNDS + 1):  # the first round includes compilation
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
