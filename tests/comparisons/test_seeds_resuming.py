"""Tests of resuming a comparison of many runs, and of its remaining time."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.resume import checkpoint_folder
from sae_geometry.cli.seeds import _in_words, _remaining_time
from sae_geometry.comparisons import seeds as seeds_module
from sae_geometry.matching import optimal
from sae_geometry.sources.cache import to_clear


def test_finished_pairs_are_not_compared_again(three, of_three, tmp_path, monkeypatch):
    first = sg.seeds(three[:2], keep=tmp_path)
    made = []
    monkeypatch.setattr(seeds_module, "_compare_pair", lambda a, b, p: made.append((a.name, b.name)) or real(a, b, p))
    real = _real
    again = sg.seeds(three, keep=tmp_path)
    assert made == [("r20", "r10"), ("r15", "r10")]
    np.testing.assert_array_equal(again.mmcs[:2, :2], first.mmcs)
    assert json.dumps(again.summary()) == json.dumps(of_three.summary())


_real = seeds_module._compare_pair


def test_records_of_something_else_are_not_used(three, of_three, tmp_path):
    sg.seeds(three, keep=tmp_path)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 3
    sg.seeds(three, keep=tmp_path, threshold=0.5)
    assert len(list(tmp_path.glob("*.npz"))) == 6  # A record is specific to its threshold.
    files[0].write_bytes(files[1].read_bytes())  # one record under another's name
    files[1].write_bytes(b"half")
    files[2].write_bytes(files[2].read_bytes()[:-40])
    np.testing.assert_array_equal(sg.seeds(three, keep=tmp_path).mmcs, of_three.mmcs)


def test_a_packed_record_is_not_unpacked(three, tmp_path, monkeypatch):
    sg.seeds(three, keep=tmp_path)
    file = min(tmp_path.glob("*.npz"))
    with np.load(file) as stored:
        np.savez_compressed(file, **stored)
    compared = []
    monkeypatch.setattr(seeds_module, "_compare_pair", lambda *pair: compared.append(pair) or _real(*pair))
    sg.seeds(three, keep=tmp_path)
    assert len(compared) == 1


@pytest.mark.parametrize("where", ["the matching", "its chance"])
def test_ctrl_c_ends_the_comparison_and_keeps_whole_pairs_only(three, of_three, tmp_path, monkeypatch, where):
    """`compare` may return the best matching so far, but among many pairs it would pass for an optimal one."""
    rounds, calls = optimal._Run._rounds, []
    # A pair takes one matching, three against the turned second run, and one between the halves of each run.
    fatal = 2 if where == "its chance" else 7

    def interrupted(run, *more):
        calls.append(run)
        if len(calls) == fatal:
            raise KeyboardInterrupt
        return rounds(run, *more)

    monkeypatch.setattr(optimal._Run, "_rounds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sg.seeds(three, keep=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == (1 if where == "the matching" else 0)
    monkeypatch.undo()
    resumed = sg.seeds(three, keep=tmp_path)
    np.testing.assert_array_equal(resumed.paired, of_three.paired)
    np.testing.assert_array_equal(resumed.paired_chance, of_three.paired_chance)


@pytest.mark.usefixtures("blank_figures")
def test_the_command_and_its_resume(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        np.save(f"r{k}.npy", np.random.default_rng(k).standard_normal((30, 8)))
    arguments = ["seeds", *(f"./r{k}.npy" for k in range(3)), "-o", "out", "--json", "-q", "--format", "png"]
    calls = []

    def stops_at_the_second(a, b, p):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return _real(a, b, p)

    monkeypatch.setattr(seeds_module, "_compare_pair", stops_at_the_second)
    stopped = CliRunner().invoke(app, arguments)
    assert stopped.exit_code == 130
    assert not out.exists()
    kept = tmp_path / "out.pairs"
    assert len(list(kept.iterdir())) == 1
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    other = kept / ("0" * 24 + ".npz")  # a pair of another comparison
    other.write_bytes(b"")
    done = CliRunner().invoke(app, [*arguments, "--resume"])
    assert done.exit_code == 0, done.output
    assert len(calls) == 4  # The first pair was not compared again.
    assert json.loads(done.stdout)["runs"] == ["r0", "r1", "r2"]
    assert list(kept.iterdir()) == [other]


def test_the_current_folder_has_a_place_for_finished_pairs(tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "below").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert checkpoint_folder(Path(".")) == tmp_path / "here.pairs"
    assert checkpoint_folder(Path("out")) == Path("out.pairs")
    monkeypatch.chdir(here / "below")
    assert checkpoint_folder(Path("..")) == tmp_path / "here.pairs"


def test_where_nothing_may_be_written_around_the_results_pairs_wait_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_GEOMETRY_CACHE", str(tmp_path / "cache"))
    out, other = tmp_path / "mount" / "out", tmp_path / "else" / "out"
    out.mkdir(parents=True)
    assert checkpoint_folder(out) == tmp_path / "mount" / "out.pairs"
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).resolve() != out.parent)
    assert checkpoint_folder(out).parent == tmp_path / "cache" / "pairs"
    assert checkpoint_folder(out) == checkpoint_folder(Path(f"{out.parent}/../mount/out"))
    assert checkpoint_folder(other) == tmp_path / "else" / "out.pairs"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert checkpoint_folder(other) != checkpoint_folder(out)
    assert checkpoint_folder(other).name.startswith("out-")
    runs = [sg.Dictionary.from_decoder(np.eye(3, 4) + i, latent_axis=0, name=str(i)) for i in range(2)]
    sg.seeds(runs, keep=checkpoint_folder(out))
    assert [p.suffix for p in to_clear()] == [".npz"], "files in the cache should be listed as ours"


def test_a_full_disk_says_where_and_keeps_what_is_whole(three, tmp_path, monkeypatch):
    write = np.savez
    left = iter([True, True, False])

    def filling(file, **arrays):
        write(file, **arrays)
        if not next(left):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", filling)
    with pytest.raises(OSError, match="No space left") as told:
        sg.seeds(three, matching="mutual", keep=tmp_path / "kept")
    assert told.value.filename == str(tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_time_for_many_pairs_is_estimated_once_and_early(capsys, monkeypatch):
    now = iter([0.0, 50.0, 52.0, 54.0, 60.0, 70.0])
    monkeypatch.setattr("sae_geometry.cli.seeds.time.perf_counter", lambda: next(now))
    drawn = []
    tick = _remaining_time(Speaker(quiet=False), 1000, lambda stage, share: drawn.append(share))
    for share in (0.1, 0.11, 0.12, 0.13, 0.14, 0.15):  # The first pair takes 50 s, the others 2 s.
        tick("pairs", share)
    assert drawn == [0.1, 0.11, 0.12, 0.13, 0.14, 0.15]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("870 pairs of 1,000 to go: about 3 minutes at this pace")


@pytest.mark.parametrize(
    ("seconds", "words"), [(61.0, "2 minutes"), (7199.0, "120 minutes"), (7200.0, "2 hours"), (2.6e5, "3 days")]
)
def test_durations_are_printed_in_words(seconds, words):
    assert _in_words(seconds) == words


def test_few_pairs_print_no_estimate(capsys):
    tick = _remaining_time(Speaker(quiet=False), 6, None)
    for done in range(7):
        tick("pairs", done / 6)
    assert not any(capsys.readouterr())
