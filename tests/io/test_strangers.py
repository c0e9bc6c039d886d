"""Tests of foreign results and foreign folders: reading changes nothing, and writing removes only our own files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import dying
import pandas as pd
import pytest
from explorer_cases import results
from limited import limited
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.io.atomic_folder import check_folder, fresh_folder
from sae_geometry.io.parquet import read_table
from sae_geometry.io.results_folder import PAGE, READY, current_record, is_page, is_plain, sealed
from sae_geometry.results import store
from sae_geometry.results.answer import Answer


def everything(root: Path) -> dict[str, object]:
    """Return the names, kinds, contents and modification times of everything in a folder."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (oct(state.st_mode), held, None if path.is_dir() else state.st_mtime_ns)
    return found


def renew(folder: Path, contents: dict[str, str] = dying.AFTER) -> None:
    with fresh_folder(folder, overwrite=True) as aside:
        dying.write(aside, contents)


@pytest.fixture
def home(tmp_path) -> Path:
    """Return a home folder with an executable file, results from elsewhere, and private results."""
    (tmp_path / ".bashrc").write_text("export PS1")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "thesis").write_text("years")
    results(tmp_path / "got", ["a", "b"], 30)
    return tmp_path


JOURNALS = [
    {"leaving": ["summary.json"], "coming": ["../.bashrc"]},
    {"leaving": ["../private", "../.bashrc"], "coming": []},
    {"leaving": [], "coming": ["../../.bashrc", "/etc/passwd", ""]},
]


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("state", [".journal", ".journal-half"])
def test_a_journal_in_a_foreign_folder_is_ignored(home, journal, state):
    ready = home / "got" / READY
    ready.mkdir()
    (ready / state).write_text(json.dumps(journal))
    (ready / ".bashrc").write_text("curl | sh")
    check_reading(home)


def test_links_in_a_foreign_folder_are_not_followed(home):
    got = home / "got"
    (got / READY).symlink_to(home / "private")
    (got / ".sae-geometry-old").symlink_to(home / "private")
    (got / ".sae-geometry-partial-x").symlink_to(home / "private")
    check_reading(home)
    for name in ("umap.parquet", "regions.json", "summary.json"):
        secret = home / "private" / name
        (got / name).rename(secret)
        (got / name).symlink_to(secret)
        with pytest.raises(ValueError, match="is a link or not a plain file"):
            sg.explore(got, home / "page.html", overwrite=True)
        (got / name).unlink()
        secret.rename(got / name)


def check_reading(home: Path) -> None:
    """Check that reading changes nothing, except that `explore` writes the file that was asked for."""
    before = everything(home)
    for read in (sg.read, lambda folder: sg.explore(folder, home / "page.html", overwrite=True)):
        with contextlib.suppress(OSError, ValueError):
            read(home / "got")
        (home / "page.html").unlink(missing_ok=True)
        assert everything(home) == before
    CliRunner().invoke(app, ["explore", str(home / "got"), "-o", str(home / "page.html")])
    CliRunner().invoke(app, ["project", str(home / "got"), "demo:local-narrow-seed0", "-o", "x"])
    (home / "page.html").unlink(missing_ok=True)
    assert everything(home) == before
    with pytest.raises(FileExistsError):
        check_folder(home / "got")
    assert everything(home) == before, "refusing a folder should not change it"


def test_a_pipe_in_a_foreign_folder_does_not_block(home):
    (home / "got" / "summary.json").unlink()
    os.mkfifo(home / "got" / "summary.json")
    with pytest.raises(ValueError, match="not a plain file"):
        sg.read(home / "got")


class Pairs(Answer):
    """Result that saves instantly."""

    dictionaries, caveats = (), ()

    def __init__(self, *names: str) -> None:
        self.names = names

    def summary(self) -> dict:
        return {"names": self.names}

    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: pd.DataFrame({"x": [1.0]}) for name in self.names}

    def figures(self) -> dict:
        return {}

    def write_extra(self, folder: Path) -> None:
        (folder / "figures" / f"{self.names[0]}.svg").write_text("<svg/>")


def test_overwrite_in_a_project_replaces_the_results_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("loss")
    (tmp_path / "src" / "link").symlink_to(tmp_path / ".git")
    monkeypatch.chdir(tmp_path)
    sg.save(Pairs("split"), tmp_path / "new")
    for path in (tmp_path / "new").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "new").rmdir()
    (tmp_path / "figures" / "mine.png").write_text("drawn by hand")
    mine = {k: v for k, v in everything(tmp_path).items() if k.startswith((".git", "src", "figures/mine"))}
    for where in (".", tmp_path):
        sg.save(Pairs("pairs", "span"), where, overwrite=True)
        after = everything(tmp_path)
        assert mine.items() <= after.items()
        assert "figures/pairs.svg" in after
        assert not {"figures/split.svg", "split.parquet"} & set(after)
        assert sg.read(".").summary["names"] == ["pairs", "span"]
        assert not [name for name in after if name.startswith(".sae")]
    os.chdir(tmp_path.parent)  # From here the folder could be replaced as a whole, but must not be.
    inode = tmp_path.stat().st_ino
    sg.save(Pairs("agreement"), tmp_path, overwrite=True)
    assert "figures/pairs.svg" not in everything(tmp_path)
    assert mine.items() <= everything(tmp_path).items()
    assert tmp_path.stat().st_ino == inode


def test_results_that_are_replaced_while_they_are_read_are_read_again(tmp_path, monkeypatch):
    folder = sg.save(Pairs("pairs"), tmp_path / "out")

    def slow(*given):
        if json.loads((folder / "summary.json").read_text())["names"] == ["pairs"]:
            sg.save(Pairs("pairs", "span"), folder, overwrite=True)
        return read_table(*given)

    monkeypatch.setattr(store, "read_table", slow)
    tables, summary = sg.read(folder)
    assert sorted(tables) == summary["names"] == ["pairs", "span"]


FOREIGN = [
    "not json",
    "[]",
    json.dumps({"total": 3}),
    json.dumps({"schema_version": 1, "kind": "Comparison"}),
    json.dumps({"schema_version": 1, "kind": "Comparison", "files": ["src/train.py"]}),
    json.dumps({"schema_version": 1, "files": {"../out": "0" * 64}}),
    json.dumps({"schema_version": 1, "files": {"/etc/passwd": "0" * 64}}),
    json.dumps({"schema_version": 1, "files": {"a\\..\\b": "0" * 64}}),
    json.dumps({"files": {"a": "0" * 64}}),
    "[" * 100_000,
]


@pytest.mark.parametrize("summary", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_summary_does_not_make_a_folder_ours(tmp_path, summary):
    (tmp_path / "summary.json").write_text(summary)
    (tmp_path / "train.py").write_text("loss")
    before = everything(tmp_path)
    with pytest.raises(FileExistsError, match="no results of this package"):
        renew(tmp_path)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["src/train.py", ".git/config", "src/link/config", "deep/er/and/deeper"])
def test_a_summary_that_claims_files_of_the_user_claims_them_in_vain(tmp_path, name):
    folder = tmp_path / "out"
    for part in ("src", ".git", "deep/er/and"):
        (folder / part).mkdir(parents=True)
    for path in ("src/train.py", ".git/config", "deep/er/and/deeper"):
        (folder / path).write_text("precious")
    (folder / "src" / "link").symlink_to(folder / ".git")
    claim = hashlib.sha256(b"precious").hexdigest() if "link" in name else "0" * 64
    (folder / "summary.json").write_text(json.dumps({"schema_version": 1, "files": {name: claim}}))
    before = {k: v for k, v in everything(folder).items() if k != "summary.json"}
    renew(folder)
    assert before.items() <= everything(folder).items()
    assert dying.opened(folder) == dying.AFTER


def test_what_stands_where_results_are_to_be_gets_another_name(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    dying.write(folder, dying.BEFORE)
    (folder / "table").write_text("edited by hand")
    (folder / "match.json").write_text("of another program")
    (folder / "figures" / "a.png").unlink()
    (folder / "figures").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").write_text("precious")
    (folder / "figures").symlink_to(tmp_path / "elsewhere")
    (folder / READY).symlink_to(tmp_path / "elsewhere")
    renew(folder)
    assert (folder / "table.old").read_text() == "edited by hand"
    assert (folder / "match.json").read_text() == "of another program"
    assert (folder / "figures.old").is_symlink()
    assert (tmp_path / "elsewhere" / "b.png").read_text() == "precious"
    assert dying.opened(folder) == dying.AFTER
    (folder / "table").write_text("edited again")
    renew(folder)
    assert (folder / "table.old1").read_text() == "edited again"


def test_leftovers_that_are_links_are_left_and_nothing_behind_them_is_removed(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "thesis").write_text("years")
    (tmp_path / ".sae-geometry-partial-x").symlink_to(tmp_path / "private")
    (tmp_path / ".sae-geometry-partial-z").mkdir()
    renew(tmp_path / "out")
    assert (tmp_path / "private" / "thesis").read_text() == "years"
    assert not (tmp_path / ".sae-geometry-partial-z").exists()
    assert dying.held(tmp_path / "out") == dying.AFTER


def test_a_record_is_believed_of_plain_files_only(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    dying.write(folder, dying.BEFORE)
    assert current_record(folder).keys() == dying.BEFORE.keys()
    assert is_plain(folder, "figures/a.png")
    assert not is_plain(folder, "figures")
    assert not is_plain(folder, "nowhere/x")
    assert not is_plain(folder, "x\0y")


@pytest.mark.parametrize("name", ["match.json", "explorer.html", "regions.json", "figures/summary.json"])
def test_a_file_of_any_name_goes_with_the_results_it_came_with(tmp_path, monkeypatch, name):
    folder = tmp_path / "out"
    folder.mkdir()
    # From outside, the folder is exchanged; from inside, its files are moved one by one.
    for cwd in (tmp_path, folder):
        monkeypatch.chdir(cwd)
        renew(folder, {name: "one"}) if any(folder.iterdir()) else dying.write(folder, {name: "one"})
        renew(folder)
        assert dying.held(folder) == dying.AFTER


@pytest.mark.parametrize("inside", [False, True], ids=["exchanged", "moved one by one"])
def test_the_page_that_was_added_goes_with_its_results_unless_it_was_edited(tmp_path, monkeypatch, inside):
    folder = tmp_path / "out"
    folder.mkdir()
    dying.write(folder, dying.BEFORE)
    (folder / PAGE).write_bytes(sealed("<html>é</html>"))
    monkeypatch.chdir(folder if inside else tmp_path)
    renew(folder)
    assert dying.held(folder) == dying.AFTER
    (folder / PAGE).write_bytes(sealed("<html>") + b"mine")
    renew(folder, {**dying.AFTER, PAGE: "new"})
    assert (folder / f"{PAGE}.old").read_bytes().endswith(b"mine")
    assert (folder / PAGE).read_text() == "new"


def test_a_folder_that_may_not_be_written_to_is_named_before_the_page_is_made(home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"is not writable; give another file with -o: .*got'$"):
        sg.explore(home / "got")


def test_the_explorer_s_page_is_known_as_ours(home):
    sg.explore(home / "got")
    assert is_page(home / "got", PAGE)
    with (home / "got" / PAGE).open("ab") as page:
        page.write(b"<!-- a note -->")
    assert not is_page(home / "got", PAGE)


def test_a_record_of_another_kind_does_not_make_a_folder_ours(tmp_path):
    (tmp_path / "match.json").write_text(json.dumps({"schema": "urn:sae-geometry:match-report"}))
    with pytest.raises(FileExistsError, match="no results of this package"):
        renew(tmp_path)


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="needs sparse files")
def test_a_listed_file_of_terabytes_that_are_not_there_is_not_hashed(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    dying.write(folder, dying.BEFORE)
    with (folder / "table").open("wb") as file:
        file.truncate(1 << 40)
    with limited(seconds=2):
        renew(folder)
    assert (folder / "table.old").stat().st_size == 1 << 40
    assert dying.opened(folder) == dying.AFTER
