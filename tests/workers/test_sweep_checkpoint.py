"""A long sweep that is stopped anywhere goes on from there, with the answer of one that never was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.distributed import KeepingRunner, keeping_sweeps, running_on, spread
from sae_geometry.distributed import sweep_checkpoint as keeping
from sae_geometry.distributed.collect import joined_report
from sae_geometry.kernels.blocks import Blocks, CeilingError
from sae_geometry.kernels.ledger import entries, ledger
from sae_geometry.kernels.runner import current_runner, sweeps_run_by
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Sweep, Task


def points(n: int, seed: int, d: int = 6) -> torch.Tensor:
    """Unit rows, many of them the same and many of them of like similarity."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(np.float32)
    x[:, 0] += 3
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


def same(found: Sweep, truth: Sweep) -> bool:
    sides = [(found.rows, truth.rows), (found.cols, truth.cols)]
    return all(
        (x is None) == (y is None)
        and (
            x is None
            or y is None
            or all(
                torch.equal(getattr(x, f).nan_to_num(7.0), getattr(y, f).nan_to_num(7.0))
                for f in ("score", "cosine", "index")
            )
        )
        for x, y in sides
    )


class Dies:
    """A runner that is killed at its n-th sweep."""

    def __init__(self, at: int) -> None:
        self.left, self.took = at, 0

    def __call__(self, task: Task, screen: str) -> Sweep | None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.took += task.a.shape[0]
        return None


QUESTIONS = {
    "rows": {"columns": False},
    "both": {},
    "absolute": {"absolute": True},
    "many": {"k": 5},
    "more than there are": {"k": 50},
    "within": {"within": True},
    "within, many": {"within": True, "k": 40, "absolute": True},
    "biased": {"columns": False, "k": 3, "bias": True},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_stopped_at_every_stripe_it_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    how = dict(QUESTIONS[name])
    a = points(37, 0)
    b = None if how.pop("within", False) else points(23, 1)
    if how.pop("bias", False):
        how["column_bias"] = torch.linspace(-0.3, 0.3, 23, dtype=torch.float64)
    truth = sweep(a, b, screen="cpu", **how)
    deaths, rows = 0, []
    while True:  # each life does one sweep more than the last had left to do
        runner = Dies(1 if b is not None else 2)
        try:
            with sweeps_run_by(runner), keeping_sweeps(tmp_path, long=2000.0, stripe=1e-9):
                found = sweep(a, b, screen="cpu", **how)
            break
        except KeyboardInterrupt:
            deaths += 1
            rows.append(runner.took)
            assert len(list(tmp_path.glob("sweep-*.npz"))) == 1
    assert deaths > 3
    assert same(found, truth)
    assert "rows were kept from before an interruption" in found.report.why
    assert (found.report.n_rows, found.report.n_cols, found.report.k) == (
        37,
        23 if b is not None else 37,
        how.get("k", 1),
    )
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 20), m=st.integers(1, 20), k=st.integers(1, 4), within=st.booleans(),
    first=st.integers(1, 4000), at=st.integers(0, 6), seed=st.integers(0, 9),
)  # fmt: skip
def test_wherever_the_stripes_are_cut(tmp_path_factory, n, m, k, within, first, at, seed) -> None:
    folder = tmp_path_factory.mktemp("kept")
    a, b = points(n, seed), None if within else points(m, seed + 1)
    truth = sweep(a, b, k, screen="cpu")
    how = {"long": float(first), "stripe": 1e9 if seed % 2 else 1e-9}
    try:
        with sweeps_run_by(Dies(at)), keeping_sweeps(folder, **how):
            found = sweep(a, b, k, screen="cpu")
    except KeyboardInterrupt:
        with keeping_sweeps(folder, **how):
            found = sweep(a, b, k, screen="cpu")
    assert same(found, truth)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    a, b = points(40, 0), points(40, 1)
    with pytest.raises(KeyboardInterrupt), sweeps_run_by(Dies(2)), keeping_sweeps(tmp_path, long=9600.0):
        sweep(a, b)
    rest = Dies(1000)
    with sweeps_run_by(rest), keeping_sweeps(tmp_path, long=9600.0):
        sweep(a, b)
    assert rest.took == 40 - 4 - 16  # a tenth of the rows, then four times as many: those were quick


def test_only_the_same_question_of_the_same_numbers_is_gone_on_with(tmp_path: Path) -> None:
    a, b = points(30, 0), points(30, 1)

    def asked(x: torch.Tensor, y: torch.Tensor | None, **how: object) -> int:
        """Rows that were swept."""
        runner = Dies(1000)
        keeper = KeepingRunner(tmp_path, then=runner, long=0.0)
        with sweeps_run_by(keeper):
            sweep(x, y, **how)  # type: ignore[arg-type]
        return runner.took

    assert asked(a, b) == 30
    assert asked(a, b) == 0, "it is whole"
    assert asked(a.clone(), b.clone(), screen="torch") == 0, "the same numbers, by another screen"
    other = a.clone()
    other[3, 2] += 1e-6
    for question in (
        {"x": other, "y": b}, {"x": a, "y": other}, {"x": b, "y": a}, {"x": a, "y": b, "k": 2},
        {"x": a, "y": b, "absolute": True},
        {"x": a, "y": b, "columns": False}, {"x": a[:29], "y": b}, {"x": a, "y": b[:29]},
        {"x": a, "y": b, "columns": False, "column_bias": torch.zeros(30, dtype=torch.float64)},
    ):  # fmt: skip
        assert asked(**question) > 0, question  # type: ignore[arg-type]
    assert asked(a, None) > 0, "self is excluded"
    assert asked(a, a.clone()) == 30, "self is not"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of another"])
def test_a_damaged_record_is_not_believed(tmp_path: Path, damage: str) -> None:
    a, b = points(30, 0), points(20, 1)
    truth = sweep(a, b)
    with pytest.raises(KeyboardInterrupt), sweeps_run_by(Dies(2)), keeping_sweeps(tmp_path, long=3000.0):
        sweep(a, b)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "of another":
        with sweeps_run_by(KeepingRunner(tmp_path, long=0.0)):
            sweep(b, a)
        [other] = set(tmp_path.iterdir()) - {path}
        other.replace(path)
    else:
        half = len(whole) // 2
        path.write_bytes({"cut": whole[:half], "empty": b"",
                          "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]}[damage])  # fmt: skip
    runner = Dies(1000)
    with sweeps_run_by(runner), keeping_sweeps(tmp_path, long=3000.0):
        found = sweep(a, b)
    assert same(found, truth)
    assert runner.took in (30, 26) if damage == "flipped" else runner.took == 30  # a bit of a header may not matter


def test_short_sweeps_are_left_to_whoever_comes_next(tmp_path: Path) -> None:
    a, b = points(30, 0), points(20, 1)
    runner = Dies(1000)
    with sweeps_run_by(runner), keeping_sweeps(tmp_path / "kept"):
        sweep(a, b)
    assert runner.took == 30
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    a, b = points(30, 0), points(20, 1)
    with keeping_sweeps(tmp_path / "file" / "kept", long=0.0) as kept:
        found = sweep(a, b)
    assert same(found, sweep(a, b))
    assert isinstance(kept.trouble, OSError)


def test_progress_rises_to_one_and_the_ledger_has_one_sweep(tmp_path: Path) -> None:
    a = points(60, 0)
    for b in (None, points(50, 1)):
        seen: list[float] = []
        with ledger(), keeping_sweeps(tmp_path, long=10.0, stripe=1e-9):
            sweep(a, b, progress=seen.append, screen="cpu")
            [entry] = entries()
        assert entry.sweeps == 1
        assert len(seen) > 10
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(1.0)


def test_an_executor_asked_for_inside_is_given_the_stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = pytest.importorskip("sae_geometry.distributed.client")
    pytest.importorskip("distributed")
    from sae_geometry.distributed import dask_runner

    class Client:
        scatter = submit = scheduler_info = None
        scheduler = None

    taken = Dies(1000)
    monkeypatch.setattr(dask_runner.DaskRunner, "__call__", lambda self, task, screen: taken(task, screen))
    with keeping_sweeps(tmp_path, long=0.0), running_on(Client()):
        assert isinstance(current_runner(), opening.KeepingRunner)
        sweep(points(30, 0), points(20, 1))
        assert len(list(tmp_path.glob("sweep-*.npz"))) == 1
    assert taken.took == 30
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_pieces_is_of_the_whole() -> None:
    a, b = points(30, 0), points(20, 1)
    parts = [sweep(a[:10], b, screen="cpu").report, sweep(a[10:], b, screen="torch").report]
    task = Task(a, b, a[:, 0].double(), b[:, 0].double(), 1, True, False, None, 1, 0, False, lambda _: Blocks(1, 1))
    whole = joined_report(task, parts, "why", 3.0)
    assert (whole.n_rows, whole.n_cols, whole.d_in, whole.seconds, whole.why) == (30, 20, 6, 3.0, "why")
    assert whole.screen == "cpu-float32, torch-float32"
    assert whole.epsilon == max(p.epsilon for p in parts)
    assert whole.memory == max(p.memory for p in parts)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keeping, "LONG", 2e5)
    for seed in range(2):
        np.save(tmp_path / f"r{seed}.npy", points(200, seed, 16).numpy())
        sides = {side: points(200, 10 * n + seed, 16).numpy() for n, side in enumerate(("W_dec", "W_enc"))}
        save_file(sides, tmp_path / f"sides{seed}.safetensors")
    return tmp_path


COMMANDS = {
    "compare": ["compare", "r0.npy", "r1.npy", "--matching", "greedy"],
    "agreement": ["agreement", "sides0.safetensors", "sides1.safetensors"],
    "match": ["match", "r0.npy", "r1.npy"],
    "within": ["within", "r0.npy"],
    "seeds": ["seeds", "r0.npy", "r1.npy"],
    "umap": ["umap", "r0.npy", "r1.npy", "--no-stability"],
    "span": ["span", "r0.npy", "r1.npy"],
    "split": ["split", "r0.npy", "r1.npy"],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_that_sweeps_resumes(here: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    before = {path.name for path in here.iterdir()}
    kept = here / ("out.pairs" if verb == "seeds" else "out.sweeps")
    command = [*COMMANDS[verb], "--format", "png", "-o", "out"]
    if verb == "match":
        command = [*COMMANDS[verb], "-o", "out"]
    write, dies = keeping.write_sweep, [2]

    def stopped(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        dies[0] -= 1
        if not dies[0]:
            raise RuntimeError("killed")  # Ctrl-C would end a matching with the best so far

    monkeypatch.setattr(keeping, "write_sweep", stopped)
    cut = CliRunner().invoke(app, command)
    assert cut.exit_code == 1
    assert "killed" in cut.stderr
    assert f"what was done is kept in {kept.name} (1 sweep); the same command with --resume goes on" in cut.stderr
    assert not (here / "out").exists()
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "add --resume to go on from there, or delete it" in refused.stderr
    done = CliRunner().invoke(app, [*command, "--resume"])
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in here.iterdir()} == before | {"out"}
    record = (here / "out" / ("match.json" if verb == "match" else "summary.json")).read_text()
    assert "were kept from before an interruption" in record


def test_a_command_whose_sweeps_cannot_be_kept_says_so_and_answers(here: Path) -> None:
    (here / "out.sweeps").write_text("in the way")
    done = CliRunner().invoke(app, ["within", "r0.npy", "--format", "png", "-o", "out"])
    assert done.exit_code == 0
    assert "sweeps could not be kept in out.sweeps: " in done.stderr
    assert os.listdir(here / "out")


def test_two_commands_do_not_keep_their_sweeps_in_one_folder(here: Path) -> None:
    command = ["within", "r0.npy", "--format", "png"]
    with held(here / "out"), held(here / "within-r0"):
        for other in (command, ["seeds", "r0.npy", "r1.npy", "--format", "png"]):
            refused = CliRunner().invoke(app, [*other, "-o", "out"])
            assert refused.exit_code == 2
            assert "out is in use by another process; wait for it, or give another folder" in refused.stderr
            assert not (here / "out").exists()
        again = CliRunner().invoke(app, [*command, "--resume"])  # what it would go on from is being worked on
        assert again.exit_code == 2
        assert "within-r0 is in use by another process" in again.stderr
        done = CliRunner().invoke(app, command)  # a name of its own is made for it
        assert done.exit_code == 0, done.stderr
        assert (here / "within-r0-2" / "summary.json").exists()
    assert not list(here.glob("*.sweeps"))


def test_what_is_kept_under_another_name_is_gone_on_from_by_that_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("killed")

    write = keeping.write_sweep
    with held(here / "within-r0"), monkeypatch.context() as dies:
        dies.setattr(keeping, "write_sweep", stopped)
        cut = CliRunner().invoke(app, ["within", "r0.npy", "--format", "png"])
    assert "(1 sweep); the same command with --resume -o within-r0-2 goes on from there" in cut.stderr
    done = CliRunner().invoke(app, ["within", "r0.npy", "--format", "png", "--resume", "-o", "within-r0-2"])
    assert done.exit_code == 0, done.stderr
    assert "were kept from before an interruption" in (here / "within-r0-2" / "summary.json").read_text()
    assert not list(here.glob("*.sweeps"))


def test_two_processes_at_once_have_a_folder_each(here: Path) -> None:
    command = [sys.executable, "-m", "sae_geometry", "within", "r0.npy", "--format", "png"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [program.communicate(timeout=120)[1] for program in both]
    assert [program.returncode for program in both] == [0, 0], said
    assert {path.name for path in here.glob("within-r0*")} == {"within-r0", "within-r0-2"}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Another process is at work there."""
    script = "import sys; from pathlib import Path; from sae_geometry.sources.cache import holding\n"
    script += "with holding(Path(sys.argv[1]), seconds=0.0): print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        try:
            yield
        finally:
            other.communicate()


def test_a_command_that_fails_leaves_no_folders(here: Path) -> None:
    np.save(here / "wide.npy", points(30, 0, 17).numpy())
    before = sorted(here.iterdir())
    failed = CliRunner().invoke(app, ["compare", "r0.npy", "wide.npy", "-o", "a/b/out"])
    assert failed.exit_code == 2
    assert sorted(here.iterdir()) == before


def test_in_python(tmp_path: Path) -> None:
    a, b = points(30, 0).numpy(), points(20, 1).numpy()
    with sg.keeping_sweeps(tmp_path, long=0.0):
        found = sg.compare(a, b)
        assert list(tmp_path.glob("sweep-*.npz"))
    np.testing.assert_array_equal(found.a_to_b.cosine, sg.compare(a, b).a_to_b.cosine)


def test_what_is_kept_of_a_pair_goes_when_the_next_is_asked_for(tmp_path: Path) -> None:
    runs = [sg.Dictionary.from_decoder(points(30, seed).numpy(), latent_axis=0) for seed in range(3)]

    def left() -> int:
        return len(list(tmp_path.glob("sweep-*.npz")))

    def work(a: sg.Dictionary, b: sg.Dictionary, _: None) -> int:
        sweep(a.directions, b.directions)
        return left()

    with keeping_sweeps(tmp_path, long=0.0):
        made = [(kept, left()) for _, kept in spread(work, runs, [(0, 1), (0, 2), (1, 2)], None)]
    assert made == [(1, 1)] * 3
    assert left() == 0


def test_a_ceiling_holds_for_the_lists_of_the_whole_too(tmp_path: Path) -> None:
    a, b = points(400, 0), points(400, 1)
    held = 36 * 64 * 800
    how = {"k": 64, "screen": "torch"}
    with keeping_sweeps(tmp_path, long=0.0):
        with pytest.raises(CeilingError, match="leaves nothing beside the 1,843,200 of the results"):
            sweep(a, b, memory=held, **how)
        found = sweep(a, b, memory=held + (64 << 20), **how)
    assert found.report.memory <= 64 << 20
    assert same(found, sweep(a, b, **how))


def test_results_that_fail_a_threshold_are_results(here: Path) -> None:
    command = ["compare", "r0.npy", "r1.npy", "--format", "png", "-o", "out", "--fail-under", "1.1"]
    before = {path.name for path in here.iterdir()}
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 3
    assert "what was done is kept" not in failed.stderr
    assert {path.name for path in here.iterdir()} == before | {"out"}


def test_what_is_left_of_another_way_goes_with_the_results(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LONG", 1e18)
    (here / "out.sweeps").mkdir()
    (here / "out.sweeps" / "sweep-0.npz").write_bytes(b"of a sweep that this process does not keep")
    done = CliRunner().invoke(app, ["within", "r0.npy", "--format", "png", "-o", "out", "--resume"])
    assert done.exit_code == 0, done.stderr
    assert not (here / "out.sweeps").exists()
    again = CliRunner().invoke(app, ["within", "r0.npy", "--format", "png", "-o", "two", "--resume"])
    assert "nothing is kept in two.sweeps: the work begins anew" in again.stderr
