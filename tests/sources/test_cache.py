"""Tests that `cache --clear` removes what was fetched and nothing else, wherever $SAE_GEOMETRY_CACHE points."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_commands import RUN, run
from typer.testing import CliRunner
from wandb_server import Loopback

from sae_geometry.cli import app
from sae_geometry.sources import SourceError, cache_root, cached_runs, clear_cache
from sae_geometry.sources.cache import holding, to_clear, wrote

OTHERS = [
    "huggingface/hub/models--gpt2/blobs/0a1b", "huggingface/token", "wandb/artifacts/obj/md5/aa/bb", "pip/http/0/1/2",
    "verified/list.txt", "verified/0123456789abcdef0123456789abcdef", ".partial/upload.bin", "wandb/logs/debug.log",
    "wandb/api.wandb.ai/team/project/run/model.pt", ".locks/mine", "notes.txt",
]  # fmt: skip


@pytest.fixture
def shared(cache: Path) -> Path:
    """Return a cache folder that other programs use too."""
    for name in OTHERS:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(f"of others: {name}")
    return cache


def held(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_symlink() or p.is_file()}


def put(name: str, text: str = "x" * 100) -> Path:
    """Write a file as a download does."""
    path = cache_root() / name
    with holding(path, seconds=1.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def test_a_shared_folder_keeps_what_others_put_there(shared: Path, wandb_world: Loopback) -> None:
    assert clear_cache() == 0
    assert set(OTHERS) <= held(shared)
    assert run("fetch", RUN).exit_code == 0
    put("huggingface/org/name/0.json")
    put("verified/fedcba9876543210fedcba9876543210")
    [entry] = cached_runs()
    assert entry.address == f"wandb:{RUN}"
    result = run("cache", "--clear")
    assert result.exit_code == 0
    assert "samples_400000.pt" in result.stderr
    assert not result.stdout.startswith("0 bytes freed")
    assert {name for name in held(shared) if not name.startswith(".locks/")} == {
        name for name in OTHERS if not name.startswith(".locks/")
    }
    assert ".locks/mine" in held(shared)
    assert cached_runs() == ()
    assert run("cache", "--clear").exit_code == 0, "clearing again should do nothing"


def test_one_run_is_cleared_and_the_rest_stays(shared: Path) -> None:
    one, two = put("wandb/host/e/p/one/m.pt"), put("wandb/host/e/p/two/m.pt")
    (two.parent / "mine.txt").write_text("a note")
    assert clear_cache("e/p/one") == 100
    assert not one.parent.exists()
    assert two.exists()
    with pytest.raises(SourceError, match="does not contain run"):
        clear_cache("e/p/one")
    with pytest.raises(SourceError, match="does not contain run"):
        clear_cache("team/project/run")  # This folder belongs to another program.
    assert clear_cache() == 100
    assert (two.parent / "mine.txt").read_text() == "a note"


@pytest.mark.parametrize("linked", ["wandb", "wandb/host", "wandb/host/e/p/run", "wandb/host/e/p/run/m.pt"])
def test_links_are_unlinked_and_not_followed(cache: Path, tmp_path: Path, linked: str) -> None:
    ours = put("wandb/host/e/p/run/m.pt")
    elsewhere = tmp_path / "elsewhere"
    (cache / linked).rename(elsewhere)
    (cache / linked).symlink_to(elsewhere)
    before = held(elsewhere) or elsewhere.read_text()
    assert ours.exists()
    assert to_clear() == (cache / linked,)
    assert clear_cache() == 0
    assert not (cache / linked).is_symlink()
    assert (held(elsewhere) or elsewhere.read_text()) == before


@pytest.mark.parametrize(
    "line",
    [
        '"../precious"', '"/etc/passwd"', '"wandb/../../precious"', '""', '"."', "7", "{", '"a\\u0000b"', "\xff",
        "[" * 100_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_a_list_that_leads_out_of_the_cache_leads_nowhere(cache: Path, line: str) -> None:
    precious = cache.parent / "precious"
    precious.write_text("years")
    put("wandb/host/e/p/run/m.pt")
    with (cache / ".sae-geometry-cache").open("ab") as marker:
        marker.write(line.encode("latin-1") + b"\n")
    assert clear_cache() == 100
    assert precious.read_text() == "years"


def test_the_cache_as_a_link_to_a_cache_of_ours_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("SAE_GEOMETRY_CACHE", str(tmp_path / "link"))
    put("wandb/host/e/p/run/m.pt")
    (tmp_path / "disk" / "other").write_text("of others")
    assert clear_cache() == 100
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "other").exists()


def test_what_was_there_before_us_is_never_ours(shared: Path) -> None:
    for name in OTHERS:
        wrote(shared / name)
    assert clear_cache() == 0
    assert set(OTHERS) <= held(shared)


class Terminal(CliRunner):
    """Standard input that is a terminal."""

    def isolation(self, *given: Any, **how: Any) -> Any:
        made = super().isolation(*given, **how)
        enter = type(made).__enter__

        class Typed:
            def __enter__(self) -> Any:
                streams = enter(made)
                import sys

                sys.stdin.isatty = lambda: True  # type: ignore[method-assign]
                return streams

            def __exit__(self, *error: Any) -> Any:
                return made.__exit__(*error)

        return Typed()


@pytest.mark.parametrize(("typed", "options", "goes"), [("n\n", [], False), ("y\n", [], True), ("", ["--yes"], True)])
def test_on_a_terminal_it_lists_and_asks(cache: Path, typed: str, options: list[str], goes: bool) -> None:
    path = put("wandb/host/e/p/run/m.pt")
    result = Terminal().invoke(app, ["cache", "--clear", *options], input=typed)
    assert "wandb/host/e/p/run/m.pt" in result.output
    assert ("Remove 1 file from" in result.output) == (not options)
    assert path.exists() != goes
    assert result.exit_code == (0 if goes else 1)


def test_as_json_it_says_what_went(cache: Path) -> None:
    put("wandb/host/e/p/run/m.pt")
    told = json.loads(run("cache", "--clear", "--json").stdout)
    assert told["removed"] == ["wandb/host/e/p/run/m.pt"]
    assert told["freed_bytes"] == 100
    assert not os.path.exists(cache / "wandb")


def test_a_list_that_is_a_link_is_not_written_through(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    (tmp_path / "profile").write_text("mine")
    (cache / ".sae-geometry-cache").symlink_to(tmp_path / "profile")
    with pytest.raises(OSError, match="link"):
        wrote(cache / "wandb" / "x.pt")
    assert (tmp_path / "profile").read_text() == "mine"


def test_a_list_that_is_a_pipe_is_not_waited_for(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    os.mkfifo(cache / ".sae-geometry-cache")
    assert cached_runs() == ()
    with pytest.raises(OSError, match=r"No such device|not writable"):
        wrote(cache / "wandb" / "x.pt")
