"""Tests that a results folder belongs to one process at a time, and that a failed command leaves none behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sae_geometry.cli import app
from sae_geometry.distributed.collect import joined_report
from sae_geometry.kernels.blocks import Blocks
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Task

pytestmark = pytest.mark.usefixtures("blank_figures")


def points(n: int, seed: int, d: int = 6) -> torch.Tensor:
    """Return unit rows with many duplicates and many nearly equal similarities."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(np.float32)
    x[:, 0] += 3
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        np.save(tmp_path / f"r{seed}.npy", points(200, seed, 16).numpy())
    return tmp_path


@contextmanager
def held(*folders: Path) -> Iterator[None]:
    """Lock the folders from another process."""
    script = "import contextlib, sys; from pathlib import Path; from sae_geometry.sources.cache import holding\n"
    script += "with contextlib.ExitStack() as stack:\n"
    script += "    for folder in sys.argv[1:]: stack.enter_context(holding(Path(folder), seconds=0.0))\n"
    script += "    print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, folders)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        try:
            yield
        finally:
            other.communicate()


def test_two_commands_never_write_to_one_folder(here: Path) -> None:
    command = ["within", "r0.npy", "--format", "png"]
    pairs = ["seeds", "r0.npy", "r1.npy", "--format", "png"]
    with held(here / "out", here / "within-r0", here / "seeds-r0-r1"):
        for other in (command, pairs):
            refused = CliRunner().invoke(app, [*other, "-o", "out"])
            assert refused.exit_code == 2
            assert "out is in use by another process; wait for it, or give another folder" in refused.stderr
            assert not (here / "out").exists()
        again = CliRunner().invoke(app, [*pairs, "--resume"])  # Another process holds the folder of its pairs.
        assert again.exit_code == 2
        assert "seeds-r0-r1 is in use by another process" in again.stderr
        done = CliRunner().invoke(app, command)  # The command chooses a new folder name.
        assert done.exit_code == 0, done.stderr
        assert (here / "within-r0-2" / "summary.json").exists()


def test_pairs_kept_under_another_name_are_resumed_by_that_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_geometry.comparisons import seeds as module

    def stopped(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("killed")

    write, command = module.write_pair, ["seeds", "r0.npy", "r1.npy", "--format", "png"]
    with held(here / "seeds-r0-r1"), monkeypatch.context() as dies:
        dies.setattr(module, "write_pair", stopped)
        cut = CliRunner().invoke(app, command)
    assert (
        "1 finished pair saved in seeds-r0-r1-2.pairs; run the same command with --resume -o seeds-r0-r1-2"
        in cut.stderr
    )
    done = CliRunner().invoke(app, [*command, "--resume", "-o", "seeds-r0-r1-2"])
    assert done.exit_code == 0, done.stderr
    assert not list(here.glob("*.pairs"))


def test_resuming_from_nothing_is_a_start(here: Path) -> None:
    done = CliRunner().invoke(app, ["seeds", "r0.npy", "r1.npy", "--format", "png", "-o", "out", "--resume"])
    assert done.exit_code == 0, done.stderr
    assert "out.pairs holds no finished pairs: starting from the first" in done.stderr


def test_two_processes_at_once_have_a_folder_each_and_draw_no_bar(here: Path) -> None:
    command = [sys.executable, "-m", "sae_geometry", "within", "r0.npy", "--json", "--format", "png"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [program.communicate(timeout=120) for program in both]
    assert [program.returncode for program in both] == [0, 0], said
    assert {path.name for path in here.glob("within-r0*")} == {"within-r0", "within-r0-2"}
    for printed, noted in said:
        assert json.loads(printed)["self"] == "excluded by index"
        assert "\x1b" not in printed + noted
        assert "wrote within-r0" in noted


def test_a_command_that_fails_leaves_no_folders(here: Path) -> None:
    np.save(here / "wide.npy", points(30, 0, 17).numpy())
    before = sorted(here.iterdir())
    failed = CliRunner().invoke(app, ["compare", "r0.npy", "wide.npy", "-o", "a/b/out"])
    assert failed.exit_code == 2
    assert sorted(here.iterdir()) == before


def test_results_that_fail_a_threshold_are_results(here: Path) -> None:
    command = ["compare", "r0.npy", "r1.npy", "--format", "png", "-o", "out", "--fail-under", "1.1"]
    before = {path.name for path in here.iterdir()}
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 3
    assert {path.name for path in here.iterdir()} == before | {"out"}


def test_a_report_of_pieces_is_of_the_whole() -> None:
    a, b = points(30, 0), points(20, 1)
    parts = [sweep(a[:10], b, screen="cpu").report, sweep(a[10:], b, screen="torch").report]
    task = Task(a, b, a[:, 0].double(), b[:, 0].double(), 1, True, False, None, 1, 0, False, lambda _: Blocks(1, 1))
    whole = joined_report(task, parts, "why", 3.0)
    assert (whole.n_rows, whole.n_cols, whole.d_in, whole.seconds, whole.why) == (30, 20, 6, 3.0, "why")
    assert whole.screen == "cpu-float32, torch-float32"
    assert whole.epsilon == max(p.epsilon for p in parts)
    assert whole.memory == max(p.memory for p in parts)
