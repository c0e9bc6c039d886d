"""Tests of logging results to W&B when it fails: early refusals, and results that stay on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb_server
from helpers import KEY
from logged import Invoke, error_line
from logged import pair as pair
from logged import run as run
from logged import sink as sink
from wandb_sink import Sink

import sae_geometry as sg

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize(
    ("target", "setting", "expected"),
    [
        ("seeds", {}, "a W&B project is named entity/project, like my-team/seeds; got 'seeds'"),
        ("a/b/c", {}, "got 'a/b/c'"),
        ("/p", {}, "got '/p'"),
        ("e/p q", {}, "got 'e/p q'"),
        ("e/p", {}, "not logged in to W&B at http://127.0.0.1:9: set WANDB_API_KEY"),
        ("e/p", {"WANDB_API_KEY": KEY}, "connection refused (3 tries); set WANDB_MODE=offline to record the results"),
        ("e/p", {"WANDB_MODE": "disabled"}, "WANDB_MODE=disabled, so nothing would be logged"),
        ("e/p", {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "nonsense"}, "WANDB_BASE_URL must be the URL of a server"),
    ],
)
def test_what_cannot_be_logged_is_refused_before_anything_is_computed(
    run: Invoke, monkeypatch, target: str, setting: dict[str, str], expected: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    result = run("compare", "demo:not-looked-at", "demo:neither", "--log-wandb", target, "-o", "out")
    assert result.exit_code == 2
    assert expected in error_line(result)
    assert not Path("out").exists()


def test_a_key_that_the_server_refuses_is_reported_before_anything_is_computed(sink: Sink, run: Invoke) -> None:
    sink.graphql_fault = wandb_server.status(401)
    result = run("within", "demo:not-looked-at", "--log-wandb", "e/p")
    assert result.exit_code == 2
    assert f"W&B at {sink.url} does not accept the configured key" in error_line(result)


def test_a_web_page_is_not_a_server(sink: Sink, run: Invoke) -> None:
    sink.graphql_fault = lambda h, _: h.reply(b"<html>hello</html>")
    result = run("within", "demo:not-looked-at", "--log-wandb", "e/p")
    assert result.exit_code == 2
    assert "sent a web page; is WANDB_BASE_URL right?" in error_line(result)


@pytest.mark.parametrize("trouble", ["no run", "no artifact", "broken upload", "silent upload"])
def test_results_stay_on_disk_when_logging_fails(
    sink: Sink, run: Invoke, pair: tuple[str, str], trouble: str, limited: Callable[..., object]
) -> None:
    match trouble:
        case "no run":
            sink.refused = {"UpsertBucket"}
        case "no artifact":
            sink.refused = {"CreateArtifact"}
        case "broken upload":
            sink.upload_fault = wandb_server.status(500)
        case "silent upload":
            sink.upload_fault = wandb_server.silent
            limited(connect=1.0, silence=0.2, tries=1, pause=0.01, longest_pause=0.05)
    started = time.monotonic()
    result = run("within", pair[0], "--log-wandb", "e/p", "-o", "out", "--format", "png")
    assert time.monotonic() - started < 60
    assert result.exit_code == 1, result.stdout
    line = error_line(result)
    assert f"could not log to W&B e/p at {sink.url}" in line
    assert "the results are in out" in line
    assert sg.read("out").summary["kind"] == "WithinComparison"
    assert "wrote out" in result.stdout


def test_seeds_keeps_no_finished_pairs_when_only_logging_fails(sink: Sink, run: Invoke, pair: tuple[str, str]) -> None:
    sink.refused = {"UpsertBucket"}
    result = run("seeds", *pair, "--log-wandb", "e/p", "-o", "out", "--format", "png")
    assert result.exit_code == 1
    assert Path("out/pairs.parquet").exists()
    assert not Path("out.pairs").exists()


def test_a_folder_that_is_not_ours_is_not_logged(sink: Sink, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a results folder"):
        sg.log_wandb(tmp_path, "e/p")
    assert not sink.mutations
