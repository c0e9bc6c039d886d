"""Tests of the fused kernel in triton's interpreter: its lists, place by place, and the sweeps that use it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import assert_same, assert_sweep, gaussian, lattice, planted, sae_like
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screens import triton as screen_triton
from sae_geometry.kernels.screens.triton import Tile, list_row_block, list_width, merge_row_block, tile_for
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Precision

triton_loops = pytest.importorskip("sae_geometry.kernels.loops.triton", reason="triton is not installed")
PRECISIONS: tuple[Precision, ...] = ("float32", "fp16", "tf32")
FUSED = ("triton", "triton-fp16", "triton-tf32")
every_precision = pytest.mark.parametrize("precision", ["float32", "fp16"])
SMALL = Tile(16, 16, 16, 4)


def listed(
    x: Tensor, y: Tensor, width: int, *, each: int = 16, precision: Precision = "float32", **how: Any
) -> tuple[Tensor, Tensor]:
    """Return the kernels' lists, from buffers that start with garbage."""
    scores = torch.full((len(x), width), torch.nan)
    indices = torch.full((len(x), width), 77)
    bias = how.pop("bias", None)
    lists = list_row_block(
        triton_loops, x, y, bias, precision=precision, tile=SMALL, width=list_width(width), each=each, **how
    )
    merge_row_block(triton_loops, lists, scores, indices)
    return scores, indices


def naive(
    x: Tensor,
    y: Tensor,
    width: int,
    *,
    bias: Tensor | None = None,
    absolute: bool = False,
    own: int | None = None,
    factor: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Sort every row (score descending, column ascending), without NaN."""
    score = factor * (x.double() @ y.double().T)
    score = score.abs() if absolute else score
    score = score if bias is None else score - bias.double()
    values, indices = np.full((len(x), width), -np.inf), np.full((len(x), width), -1)
    for i, row in enumerate(score.tolist()):
        there = [j for j, s in enumerate(row) if s == s and (own is None or j != own + i)]
        best = sorted(there, key=lambda j: (-row[j], j))[:width]
        values[i, : len(best)], indices[i, : len(best)] = [row[j] for j in best], best
    return values, indices


def assert_listed(found: tuple[Tensor, Tensor], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found[1].numpy(), expected[1])
    np.testing.assert_array_equal(found[0].numpy(), expected[0])


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new buffers with NaN and with invalid indices."""
    empty = torch.empty

    def poison(*args: Any, **kwargs: Any) -> Tensor:
        x = empty(*args, **kwargs)
        return x.fill_(torch.nan if x.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poison)


# Small integers make every product and sum exact in fp16 and float32, so lists must agree in every place.


@every_precision
@pytest.mark.parametrize(
    ("n", "m", "d", "width"),  # A width of 7 uses 7 of 8 places.
    [(1, 1, 1, 1), (1, 1, 1, 7), (1, 40, 3, 4), (17, 33, 16, 7), (16, 16, 17, 1), (33, 63, 40, 4)],
)
def test_ragged_shapes_and_ties(n: int, m: int, d: int, width: int, precision: Precision) -> None:
    kind = torch.float16 if precision == "fp16" else torch.float32
    x, y = lattice(n, d, 1).to(kind), lattice(m, d, 2).to(kind)
    assert_listed(listed(x, y, width, precision=precision), naive(x, y, width))


def test_lists_do_not_depend_on_splits() -> None:
    x, y = lattice(7, 3, 1), lattice(90, 3, 2)  # With three entries nearly every score is a tie.
    expected = naive(x, y, 6)
    for each in (16, 48, 96):
        assert_listed(listed(x, y, 6, each=each), expected)


@pytest.mark.parametrize(("absolute", "precision"), [(False, "float32"), (True, "float32"), (True, "fp16")])
def test_bias_self_and_scale(absolute: bool, precision: Precision) -> None:
    kind = torch.float16 if precision == "fp16" else torch.float32
    x, y = lattice(17, 5, 1).to(kind), lattice(18, 5, 2).to(kind)
    bias = torch.randint(-3, 4, (18,), generator=torch.Generator().manual_seed(0)).float()
    for how in ({"bias": bias}, {"own": 0}, {"own": 14}, {"bias": bias, "own": 11, "factor": 0.25}):
        expected = naive(x, y, 5, absolute=absolute, **how)  # type: ignore[arg-type]
        assert_listed(listed(x, y, 5, absolute=absolute, precision=precision, **how), expected)


@every_precision
def test_nan_is_never_a_partner(precision: Precision) -> None:
    kind = torch.float16 if precision == "fp16" else torch.float32
    x, y = lattice(18, 4, 1).to(kind), lattice(20, 4, 2).to(kind)
    y[[0, 17, 19]] = torch.nan
    x[5] = torch.nan
    for own in (None, 3):
        scores, indices = listed(x, y, 20, own=own, precision=precision)
        assert_listed((scores, indices), naive(x, y, 20, own=own))
        assert not torch.isin(indices, torch.tensor([0, 17, 19])).any()
        assert bool((indices[5] == -1).all())
        assert bool((scores[5] == -torch.inf).all())


@every_precision
def test_operands_in_any_strides(precision: Precision) -> None:
    kind = torch.float16 if precision == "fp16" else torch.float32
    x, y = lattice(40, 36, 1).to(kind), lattice(36, 80, 2).to(kind)
    left, right = x[::2, ::3], y[::3, 5:70:2].T
    assert not left.is_contiguous()
    assert right.stride() == (2, 240)
    assert_listed(listed(left, right, 4, precision=precision), naive(left, right, 4))


def test_rows_beyond_two_to_the_thirty_one_entries() -> None:
    far = torch.zeros(1, dtype=torch.float16).untyped_storage()
    far.resize_(2 * (2 * 2**30 + 16))  # This takes 4 GiB of address space, but only three rows are touched.
    x = torch.tensor([], dtype=torch.float16).set_(far, 0, (3, 16), (2**30, 1))
    x.copy_(lattice(3, 16, 1))
    y = lattice(20, 16, 2).half()
    assert_listed(listed(x, y, 3, precision="fp16"), naive(x.contiguous(), y, 3))
    assert_listed(listed(y, x, 3, precision="fp16"), naive(y, x.contiguous(), 3))


def test_a_tile_that_beats_no_list_enters_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns come from best to worst, so that after the first tile every list is full of better ones."""
    x = torch.ones(16, 1)
    y = torch.arange(160, 0, -1).float()[:, None]
    from triton import language as tl

    minima: list[int] = []
    real = tl.min
    monkeypatch.setattr(tl, "min", lambda *a, **k: minima.append(1) or real(*a, **k))
    counts = []
    for columns in (y, y.flip(0)):
        minima.clear()
        assert_listed(listed(x, columns, 4, each=160), naive(x, columns, 4))
        counts.append(len(minima))
    best_first, best_last = counts
    # An insertion takes two minima, and each of nine more tiles takes four insertions.
    assert best_last - best_first == 2 * 4 * 9


# The tests below are of sweeps with the kernel.


@pytest.mark.parametrize(
    ("n", "m", "d", "k", "screen"),
    [(1, 1, 3, 1, "triton"), (130, 70, 33, 1, "triton"), (3, 20, 1, 64, "triton-fp16")]
    + [(63, 65, 8, 3, screen) for screen in FUSED],
)
def test_ragged_shapes_against_the_definition(n: int, m: int, d: int, k: int, screen: str) -> None:
    assert_sweep(gaussian(n, d, 1), gaussian(m, d, 2), k, screen=screen, audit=True)


@pytest.mark.parametrize(
    ("screen", "absolute", "kind"),
    [
        ("triton", False, "biased"), ("triton", True, "within"), ("triton", False, "between"),
        ("triton-fp16", True, "biased"), ("triton-fp16", False, "within"), ("triton-tf32", True, "between"),
    ],
)  # fmt: skip
def test_every_option_against_the_definition(screen: str, absolute: bool, kind: str) -> None:
    a, b = planted(33, 39, 6, seed=3)
    how: dict[str, Any] = {"absolute": absolute, "screen": screen, "audit": True, "blocks": (20, 25)}
    if kind == "biased":
        bias = 0.3 * torch.randn(39, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        how |= {"column_bias": bias, "columns": False}
    assert_sweep(a, None if kind == "within" else b, 3, **how)


@pytest.mark.parametrize("screen", FUSED)
def test_rows_of_zeros(screen: str) -> None:
    assert_sweep(torch.zeros(17, 9), None, 3, screen=screen)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_shortlist_is_what_it_says(precision: Precision) -> None:
    a, b = sae_like(33, 60, 40)
    captured = {}
    real = screen_triton.shortlist_of

    def keep(scores: Tensor, indices: Tensor, epsilon: Tensor) -> Any:
        captured.setdefault("rows", (scores, indices, epsilon))
        return real(scores, indices, epsilon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen_triton, "shortlist_of", keep)
        sweep(a, b, 2, screen="triton" if precision == "float32" else f"triton-{precision}", blocks=(32, 32))
    scores, indices, epsilon = captured["rows"]
    every = torch.arange(60)
    for i in range(33):
        exact = exact_dots(a, b, torch.full_like(every, i), every)
        assert bool(((scores[i].double() - exact[indices[i]]).abs() <= epsilon[i]).all())
        left_out = exact[~torch.isin(every, indices[i])]
        assert float(left_out.max()) <= float(scores[i, -1]) + float(epsilon[i])
        assert bool((scores[i].diff() <= 0).all())


def test_progress_counts_the_row_blocks_of_both_sides() -> None:
    seen: list[float] = []
    sweep(gaussian(40, 8), gaussian(30, 8, 1), screen="triton", blocks=(16, 16), progress=seen.append)
    assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_few_rows_split_the_columns_and_many_do_not() -> None:
    cpu, tile = torch.device("cpu"), tile_for("fp16", 4)
    assert screen_triton.splits(128, 10_000, tile, cpu) == 16
    assert screen_triton.splits(128, 100, tile, cpu) == 2
    assert screen_triton.splits(100_000, 10_000, tile, cpu) == 1


def test_lists_have_room_for_what_is_wanted() -> None:
    assert [list_width(w) for w in (1, 3, 4, 5, 8, 74, 80, 128)] == [4, 4, 4, 8, 8, 128, 128, 128]


def test_the_report_names_the_screen() -> None:
    report = sweep(gaussian(20, 4), screen="triton-fp16").report
    assert (report.screen, report.why) == ("triton-fp16", "asked for")


def _without_interpreter(code: str) -> str:
    import os

    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    return done.stdout + done.stderr


def test_cpu_tensors_without_the_interpreter_are_refused() -> None:
    said = _without_interpreter(
        "import torch; from sae_geometry.kernels.sweep import sweep; sweep(torch.eye(3), screen='triton')"
    )
    assert "ValueError: the triton screens need tensors on a CUDA device; these are on cpu" in said


def test_without_triton_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sae_geometry.kernels.loops.triton")
    monkeypatch.delattr("sae_geometry.kernels.loops.triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match=r"pip install 'sae-geometry\[cu13\]'"):
        sweep(gaussian(20, 4), screen="triton")


def test_the_same_bits_as_every_other_screen_where_float32_cannot_tell() -> None:
    x = gaussian(1, 30).repeat(60, 1)
    x[:, 0] = (x[:, 0].view(torch.int32) + torch.arange(60, dtype=torch.int32)).view(torch.float32)
    for screen in FUSED:
        assert_same(sweep(x, x.flip(0), 5, screen=screen), sweep(x, x.flip(0), 5, screen="cpu"))
