"""What this machine can do, and whether the sweep is exact on it."""

from __future__ import annotations

import os
import time

import numpy as np
import torch

from sae_geometry.embedding import choose_backend
from sae_geometry.kernels.reference import best, exact_cosines
from sae_geometry.kernels.sweep import ScreenName, cpu_threads, sweep
from sae_geometry.store import software


def diagnose() -> dict[str, dict[str, str]]:
    """Sections "software", "device", "back ends" and "checks", each a mapping of short texts.

    A check says "exact" when a screen gives, bit for bit, the partners and scores of the dense definition on a small
    case with ties and duplicates (rows, columns, within; signed and absolute), "not here" when it cannot run, and
    begins with "WRONG" when it differs.
    """
    engine, version, why = choose_backend("auto")
    return {
        "software": software(),
        "device": _device(),
        "back ends": {
            "sweep": "torch float32 on the GPU"
            if torch.cuda.is_available()
            else "compiled loops on the CPU, float32 or int8",
            "UMAP": f"{engine} {version} ({why})",
        },
        "checks": _checks(),
    }


def _device() -> dict[str, str]:
    found = {
        "cpu": f"{os.cpu_count()} cores, {cpu_threads()} threads used; {torch.backends.cpu.get_cpu_capability()}",
        "cuda": "none",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["cuda"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _checks() -> dict[str, str]:
    cases: list[tuple[str, ScreenName, str]] = [
        ("sweep, cpu", "cpu", "cpu"),
        ("sweep, int8", "int8", "cpu"),
        ("sweep, torch", "torch", "cpu"),
    ]
    if torch.cuda.is_available():
        cases += [("sweep, cuda", "torch", "cuda"), ("cuda, fp16", "fp16", "cuda"), ("cuda, tf32", "tf32", "cuda")]
    return {label: _check(screen, device) for label, screen, device in cases}


def _check(screen: ScreenName, device: str) -> str:
    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(130, 96, generator=generator), dim=1)
    b = torch.nn.functional.normalize(torch.randn(201, 96, generator=generator), dim=1)
    b[7:40] = b[3]
    a[5], a[6] = b[3], -b[3]
    between, inside = exact_cosines(a, b), exact_cosines(b, b)
    start = time.perf_counter()
    for absolute in (False, True):
        try:
            found = sweep(a.to(device), b.to(device), 4, screen=screen, absolute=absolute)
            within = sweep(b.to(device), None, 4, screen=screen, absolute=absolute)
        except ValueError as error:
            return f"not here: {error}"
        assert found.cols is not None
        kind = "absolute" if absolute else "signed"
        for what, got, scores, alone in (
            ("rows", found.rows, between, False),
            ("columns", found.cols, between.T, False),
            ("within", within.rows, inside, True),
        ):
            value, index = best(np.abs(scores) if absolute else scores, 4, exclude_self=alone)
            same = np.array_equal(got.index.cpu().numpy(), index) and np.array_equal(got.score.cpu().numpy(), value)
            if not same:
                return f"WRONG: {what} ({kind}) differ from the dense float64 definition"
    seconds = time.perf_counter() - start
    return f"exact ({a.shape[0]} × {b.shape[0]} and within, ties and duplicates, {seconds:.2f} s with start-up)"
