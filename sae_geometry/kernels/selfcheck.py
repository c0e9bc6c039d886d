"""Self-check of a device: small sweeps, compared bit for bit with the dense float64 definition.

`sae-geometry doctor` runs it, since the tests never see the user's device and driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.audit import AuditError
from sae_geometry.kernels.reference import best, exact_cosines
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Best, ScreenName


@dataclass(frozen=True)
class Case:
    """One sweep of the self-check: A against B (within A if B is None), k, and options."""

    name: str
    a: Tensor
    b: Tensor | None
    k: int
    absolute: bool = False
    bias: Tensor | None = None


def cases() -> Iterator[Case]:
    """Yield sweeps with ties, duplicates, opposite and zero rows, ragged shapes, k = 64, too few columns, or a bias."""
    a, b = _unit(130, 96, 0), _unit(201, 96, 1)
    b[7:40] = b[3]
    a[5], a[6], a[9] = b[3], -b[3], 0.0
    for absolute in (False, True):
        yield Case("duplicates", a, b, 4, absolute)
        yield Case("within", b, None, 4, absolute)
    yield Case("64 best", _unit(70, 33, 2), _unit(90, 33, 3), 64)
    yield Case("one row, fewer than k", _unit(1, 5, 4), _unit(3, 5, 5), 4)
    whole = torch.Generator().manual_seed(6)
    ties = [torch.randint(-2, 3, (n, 6), generator=whole).float() for n in (65, 63)]
    yield Case("ties", ties[0], ties[1], 5)
    yield Case("ties within", ties[0], None, 5, True)
    bias = 0.3 * torch.randn(201, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    yield Case("bias", a, b, 2, False, bias)


def run_suite(screen: ScreenName, device: str) -> str:
    """Return "exact (…)" if a screen matches the definition bit for bit in every case on a device.

    Otherwise return "not here: …" if the screen cannot run, or "WRONG: …" if an answer differs.
    """
    start, asked = time.perf_counter(), truths()
    for case, score in asked:
        b, bias = (None if x is None else x.to(device) for x in (case.b, case.bias))
        try:
            found = sweep(
                case.a.to(device), b, case.k, screen=screen, absolute=case.absolute, column_bias=bias,
                columns=bias is None, blocks=(64, 128),
            )  # fmt: skip
        except (ValueError, ImportError) as error:
            return f"not here: {error}"
        except AuditError as error:
            return f"WRONG: {case.name}: {error}"
        for side, got, truth in (("rows", found.rows, score), ("columns", found.cols, score.T)):
            if got is not None and not _same(got, truth, case.k, case.b is None):
                kind = "absolute" if case.absolute else "signed"
                return f"WRONG: {side} ({case.name}, {kind}) differ from the dense float64 definition"
    return f"exact ({len(asked)} cases with ties, duplicates, ragged shapes; {time.perf_counter() - start:.2f} s)"


def _unit(n: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@cache
def truths() -> tuple[tuple[Case, np.ndarray], ...]:
    """Return every case of the self-check with its exact score matrix."""
    return tuple((case, _scores(case)) for case in cases())


def _scores(case: Case) -> np.ndarray:
    score = exact_cosines(case.a, case.a if case.b is None else case.b)
    score = np.abs(score) if case.absolute else score
    return score if case.bias is None else score - case.bias.numpy()


def _same(found: Best, score: np.ndarray, k: int, within: bool) -> bool:
    value, index = best(score, k, exclude_self=within)
    return np.array_equal(found.index.cpu().numpy(), index) and np.array_equal(found.score.cpu().numpy(), value)
