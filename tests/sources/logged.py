"""Fixtures of the tests of logging to W&B: a command in a folder, a server with room for runs, and two files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import oracles
import pytest
import safetensors.numpy
import wandb_server
from click.testing import Result
from helpers import KEY
from typer.testing import CliRunner
from wandb_sink import Sink

from sae_geometry.cli import app
from sae_geometry.kernels.settings import Limits, changed

Invoke = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command in a temporary folder."""
    home = tmp_path / "here"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("WANDB_MODE", "WANDB_DIR", "SAE_GEOMETRY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.fixture
def sink(wandb_world: wandb_server.Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """Start a W&B with one finished run and room for more, and set a key for it."""
    world = Sink()
    world.runs = dict(wandb_world.runs)
    monkeypatch.setenv("WANDB_BASE_URL", world.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with changed(limits=Limits(connect=5.0, silence=10.0, tries=2, pause=0.01, longest_pause=0.05)):
        yield world
    world.close()


@pytest.fixture
def pair(tmp_path: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Write two small files of one model and hook point, with decoders and encoders."""
    a, b = oracles.related_decoders(rng, n=60, m=47, d=12, shared=30)
    for name, rows in (("a", a), ("b", b)):
        folder = tmp_path / name
        folder.mkdir()
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        tensors = {"W_dec": rows, "W_enc": np.ascontiguousarray(rows.T), "b_enc": rows[:, 0].copy()}
        safetensors.numpy.save_file(tensors, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps({"d_sae": len(rows), "d_in": 12, "hook_name": "h"}))
    return str(tmp_path / "a"), str(tmp_path / "b")


def error_line(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]
