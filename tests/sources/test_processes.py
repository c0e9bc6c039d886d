"""Tests with several processes, killed processes, and the memory that a large file takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tree
from wandb_server import Loopback, slow

from sae_geometry.sources import load

RUN = "sparsify/gpt2/d8vgjnyc"
LAST = "samples_400000.pt"
ROOT = Path(__file__).parents[2]
LOAD = f"from sae_geometry.sources import load; print(load('wandb:{RUN}').fingerprint)"
# Shells start background jobs with SIGINT ignored, and child processes inherit this.
HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def python(code: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=-1, stderr=-1, text=True)


def wait_for_download(world: Loopback) -> None:
    deadline = time.monotonic() + 60
    while not world.downloads(LAST):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_fetch_a_file_once(wandb_world: Loopback) -> None:
    wandb_world.faults[LAST] = slow(2.0)
    both = [python(LOAD), python(LOAD)]
    answers = [p.communicate(timeout=90) for p in both]
    assert [p.returncode for p in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0] == load(f"wandb:{RUN}").fingerprint + "\n"
    assert len(wandb_world.downloads(LAST)) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_dies_in_the_middle_leaves_nothing_in_place(
    wandb_world: Loopback, cache: Path, how: signal.Signals
) -> None:
    wandb_world.faults[LAST] = slow(8.0)
    victim = python(HEARS_CTRL_C + LOAD)
    wait_for_download(wandb_world)
    time.sleep(0.3)
    victim.send_signal(how)
    victim.communicate(timeout=30)
    assert victim.returncode != 0
    assert tree(cache) == {}
    if how == signal.SIGINT:
        assert not [p for p in (cache / ".partial").rglob("*") if p.is_file()], "Ctrl-C should leave no partial file"
    wandb_world.faults.clear()
    assert load(f"wandb:{RUN}").n_latents == 240


MEASURE = """
from pathlib import Path
from sae_geometry.sources import load

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

load({warm!r}, encoder=False)
for path in {paths!r}:
    for encoder in (False, True):
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = kilobytes("VmRSS")
        d = load(path, encoder=encoder)
        print(d.n_latents, (kilobytes("VmHWM") - before) * 1024)
        del d
"""


def big_files(folder: Path) -> tuple[list[Path], int]:
    """Write a decoder of 32 MB (float32) and five times as much next to it, in every container, with 8,192 latents."""
    from safetensors.torch import save_file

    n, d = 8192, 1024
    decoder = torch.ones(n, d)
    tensors = {"W_dec": decoder, "W_enc": torch.ones(d, n), "b_enc": torch.ones(n), "more": torch.ones(4, n, d)}
    paths = [folder / f"big.{container}" for container in ("safetensors", "pt", "npz")]
    save_file(tensors, paths[0])
    torch.save(tensors, paths[1])
    np.savez(paths[2], **{k: v.numpy() for k, v in tensors.items()})
    return paths, decoder.nbytes


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's /proc")
def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    paths, decoder_bytes = big_files(tmp_path)
    warm = tmp_path / "warm.npy"
    np.save(warm, np.eye(9, 5, dtype=np.float32) + 1)
    out, err = python(MEASURE.format(warm=str(warm), paths=list(map(str, paths)))).communicate(timeout=120)
    cases = [(path, tensors) for path in paths for tensors in (1, 2)]  # first the decoder, then the encoder too
    assert len(out.splitlines()) == len(cases), err
    for (path, tensors), line in zip(cases, out.splitlines(), strict=True):
        n, peak = line.split()
        assert n == "8192", err
        # The limit covers the result, the file's pages that were read and those that the kernel maps around them, and
        # the blocks of float64. Reading the 128 MiB of "more" as well would exceed it.
        assert int(peak) <= 2 * tensors * decoder_bytes + (180 << 20), (path.name, tensors, int(peak))


def test_importing_and_helping_load_no_client() -> None:
    code = """
import sys
import sae_geometry
import sae_geometry.sources
from sae_geometry.sources import load
load("demo:local-seed0")
from typer.testing import CliRunner
from sae_geometry.cli import app
assert CliRunner().invoke(app, ["within", "demo:nothing"]).exit_code == 1
heavy = {"wandb", "huggingface_hub", "requests", "filelock", "sae_lens", "safetensors"} & set(sys.modules)
assert not heavy, heavy
"""
    out, err = python(code).communicate(timeout=60)
    assert (out, err) == ("", "")
    script = "import sys; sys.argv = ['sae-geometry', '--help']\nfrom sae_geometry.cli import main\n"
    script += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    script += "print({'wandb', 'huggingface_hub', 'torch'} & set(sys.modules))"
    out, err = python(script).communicate(timeout=60)
    assert out.endswith("set()\n"), err


def test_asking_where_the_cache_is_makes_no_folder(cache: Path) -> None:
    from sae_geometry.sources import cache_root, cached_runs, clear_cache

    assert cache_root() == cache
    assert cached_runs() == ()
    assert clear_cache() == 0
    assert not cache.exists()
