"""Functions that the tests run on workers, in a module of their own that is quick to import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from unittest import mock

import torch
from simulated_gpu import simulated_gpu

from sae_geometry.comparisons.seeds import _compare_pair
from sae_geometry.distributed import worker as work
from sae_geometry.distributed.errors import NotLoadedError
from sae_geometry.distributed.worker import blas_threads, translate_oom
from sae_geometry.kernels import audit
from sae_geometry.kernels.settings import current


def slowly(a, b, tile, question, bias):
    time.sleep(0.1)
    return work.sweep_tile(a, b, tile, question, bias)


def dies_of_many_rows(a, b, tile, question, bias):
    if tile.rows[0] == 0 and tile.rows[1] > 200:
        _run_out_of_memory()
    return work.sweep_tile(a, b, tile, question, bias)


def _run_out_of_memory() -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)  # The kernel ends processes in this way.


def dies_of_the_first(a, b, here: int) -> tuple[str, bool]:
    if a.name == "a" and os.getpid() != here:
        _run_out_of_memory()
    return a.name + b.name, os.getpid() == here


def where(a, b, parameters) -> tuple[int, int]:
    return os.getpid(), blas_threads()


def terms(a, b, parameters) -> tuple[int, int | None, str]:
    return os.getpid(), current().memory, str(a.directions.device)


def on_64_threads(a, b, tile, question, bias):
    before, work.cpu_threads = work.cpu_threads, lambda: 64
    try:
        return work.sweep_tile(a, b, tile, question, bias)
    finally:
        work.cpu_threads = before


def with_gpu(function, *given):
    few = mock.patch.multiple(audit, SAMPLED=4, LAST=2)  # An audit takes most of the time on a simulated GPU.
    with simulated_gpu(), few, mock.patch.object(torch.cuda, "is_available", return_value=True):
        return function(*given)


def fingerprints(a, b, parameters) -> tuple[str, str]:
    return a.fingerprint, b.fingerprint


def not_loaded_at_first(marker, *given):
    if marker.exists():
        marker.unlink()
        raise NotLoadedError("demo:local-seed0")
    return work.sweep_tile(*given)


def too_much(a, b, tile, question, bias):
    if tile.rows[1] - tile.rows[0] > 40:
        raise MemoryError
    return work.sweep_tile(a, b, tile, question, bias)


def torch_is_refused_memory(a, b, tile, question, bias):
    with translate_oom():
        torch.empty((tile.rows[1] - tile.rows[0] > 40) << 60, dtype=torch.uint8)
    return work.sweep_tile(a, b, tile, question, bias)


def fails(a, b, tile, question, bias):
    raise ZeroDivisionError("as it is")


def cosine_of_five(a, b, tile, question, bias):
    found = work.sweep_tile(a, b, tile, question, bias)
    return replace(found, rows=(found.rows[0] + 5, found.rows[1]))


def record_of_five(a, b, parameters):
    return replace(_compare_pair(a, b, parameters), mmcs=(5.0, 5.0))
