"""Tests of comparisons in several threads, and in processes forked after a computation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import numpy as np
import sae_geometry as sg

def answer(pair):
    return repr(sg.compare(*pair))

rng = np.random.default_rng(0)
one, *others = (rng.standard_normal((600, 128)) for _ in range(3))  # large enough for several threads
pairs = [(one, other) for other in others]
here = [answer(pair) for pair in pairs]
with ThreadPoolExecutor(2) as pool:
    assert list(pool.map(answer, pairs)) == here
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(answer, pairs)) == here
print("the same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_threads_and_forked_processes_give_the_same_answer():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout.strip() == "the same", done.stderr
