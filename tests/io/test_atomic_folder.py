"""Tests that a results folder is either unchanged or complete wherever the writing process is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import dying
import pytest
import resuming

from sae_geometry.io import atomic_folder as folders
from sae_geometry.io.atomic_folder import fresh_folder

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts Linux's system calls")


def deaths(*how: str) -> list[dict]:
    env = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])}
    made = subprocess.run(
        [sys.executable, dying.__file__, *how], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(made.stdout)


@linux
@pytest.mark.parametrize("how", ["new", "empty", "replaced"])
def test_killed_anywhere_it_is_as_it_was_or_complete(how):
    seen = deaths(how)
    before = dying.BEFORE if how == "replaced" else {}
    states = [d["at_once"] for d in seen]
    assert before in states
    assert dying.AFTER in states
    assert all(state in (before, dying.AFTER) for state in states)
    check_readers(seen, before)


@linux
@pytest.mark.parametrize("how", ["current", "empty current", "no exchange", "with files of others"])
def test_where_files_are_moved_one_by_one_readers_see_the_old_or_the_new(how):
    seen = deaths(how)
    before = {} if how == "empty current" else dying.BEFORE
    mine = dying.MINE if how == "with files of others" else {}
    check_readers(seen, before, mine)
    torn = [d for d in seen if d["at_once"] not in ({**before, **mine}, {**dying.AFTER, **mine})]
    assert torn, "some process should die in the middle of the move"
    assert all(d["at_once"].items() >= mine.items() for d in seen), "files of others should stay"


def check_readers(seen: list[dict], before: dict, mine: dict | None = None) -> None:
    """Check that every reader got the old or the new results, and that the next run was not affected."""
    read = [d["read"] for d in seen]
    assert read[0] == before
    assert read[-1] == dying.AFTER
    assert all(state in (before, dying.AFTER) for state in read)
    assert all(d["again"] in (d["read"], dying.AFTER) for d in seen)
    assert all(d["at_last"] == {**dying.AFTER, **(mine or {})} for d in seen)
    assert all(d["left"] == [] for d in seen), "the next run should remove what a killed one left"


def results(folder: Path) -> Path:
    folder.mkdir()
    dying.write(folder, dying.BEFORE)
    return folder


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_an_error_in_the_middle_of_a_move_leaves_the_old_or_the_new(tmp_path, monkeypatch, fails_at):
    folder = results(tmp_path / "out")
    monkeypatch.chdir(folder)
    calls: list[object] = []

    def failing(step):
        def once(*given):
            calls.append(given)
            if len(calls) == fails_at:
                raise OSError(errno.EIO, "Input/output error")
            return step(*given)

        return once

    with monkeypatch.context() as patched, contextlib.suppress(OSError):
        for where, name in ((Path, "rename"), (Path, "unlink"), (os, "replace")):
            patched.setattr(where, name, failing(getattr(where, name)))
        with fresh_folder(folder, overwrite=True) as aside:
            dying.write(aside, dying.AFTER)
    assert len(calls) >= fails_at
    assert dying.opened(folder) == (dying.BEFORE if fails_at < 3 else dying.AFTER)
    with fresh_folder(folder, overwrite=True) as aside:
        dying.write(aside, dying.AFTER)
    assert dying.held(folder) == dying.AFTER
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


@linux
def test_in_a_folder_of_a_group_results_are_of_that_group(tmp_path):
    tmp_path.chmod(0o2775)
    for _ in range(2):
        with fresh_folder(tmp_path / "out", overwrite=True) as aside:
            dying.write(aside, dying.AFTER)
        assert all(path.stat().st_mode & 0o2000 for path in (tmp_path / "out", tmp_path / "out" / "figures"))


def test_the_folder_that_must_stay_stays(tmp_path, monkeypatch):
    folder = results(tmp_path / "out")
    monkeypatch.chdir(folder)
    inode = folder.stat().st_ino
    with fresh_folder(Path("."), overwrite=True) as aside:
        dying.write(aside, dying.AFTER)
    assert (folder.stat().st_ino, dying.held(folder)) == (inode, dying.AFTER)


def test_the_mode_of_a_replaced_folder_stays(tmp_path):
    folder = results(tmp_path / "out")
    folder.chmod(0o750)
    with fresh_folder(folder, overwrite=True) as aside:
        dying.write(aside, dying.AFTER)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert dying.held(folder) == dying.AFTER


def test_folders_of_running_processes_are_left_alone(tmp_path):
    with fresh_folder(tmp_path / "one") as first:
        dying.write(first, dying.AFTER)
        with fresh_folder(tmp_path / "two") as second:
            assert first.exists()
            dying.write(second, dying.AFTER)
        assert first.exists()
    assert dying.held(tmp_path / "one") == dying.held(tmp_path / "two") == dying.AFTER
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_where_folders_cannot_be_locked_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    def cannot(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders, "_lock", cannot)
    (tmp_path / ".sae-geometry-partial-x").mkdir()
    with fresh_folder(tmp_path / "out") as aside:
        dying.write(aside, dying.AFTER)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".sae-geometry-partial-x", "out"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_seeds_killed_at_twenty_random_moments_and_resumed_give_the_same_files():
    env = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, resuming.__file__], env=env, capture_output=True, text=True, check=True, timeout=300
    )
    told = json.loads(made.stdout.splitlines()[-1])
    assert len(told["kept"]) == 20
    # Only finished pairs leave a trace of the moment.
    assert len(set(told["kept"])) > 1, "the kills should come at different moments"
    assert told["left"] == []
    assert len(told["made"]) == resuming.TRIALS
    truth = told["truth"]
    assert {"pairs.parquet", "consensus.parquet", "orphans.parquet", "summary.json"} <= set(truth)
    for each in told["made"]:
        assert each["code"] == 0
        assert set(each["held"]) == set(truth)
        for name in truth:
            if name == "summary.json":
                assert _timeless(each["held"][name]) == _timeless(truth[name])
            elif name == "report.html":
                before = b"<h2>How it was made"
                assert bytes.fromhex(each["held"][name]).split(before)[0] == bytes.fromhex(truth[name]).split(before)[0]
            else:
                assert each["held"][name] == truth[name], name
    stopped = told["stopped"]
    assert stopped["code"] == 143
    assert stopped["folder"] is False
    kept, error = stopped["said"]
    assert kept.startswith(f"{stopped['pairs']} finished pair")
    assert kept.endswith(" saved in terminated.pairs; run the same command with --resume to continue")
    assert error == "error: stopped by SIGTERM; no results folder was left half-written"


def _timeless(hexadecimal: str) -> dict:
    summary = json.loads(bytes.fromhex(hexadecimal))
    del summary["files"]["report.html"]  # The page shows the command.
    return {k: v for k, v in summary.items() if k not in ("command", "created", "sweeps")}


def test_a_full_disk_says_which_and_a_closed_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as told, fresh_folder(tmp_path / "out"):
        full()
    assert told.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "access", lambda *_: False)  # os.access is simulated, because root may write anywhere.
    with pytest.raises(PermissionError, match="is not writable"):
        folders.check_folder(tmp_path / "new")
