"""Tests of the commands fetch, runs, cache and drift."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import E2E
from test_wandb import project
from typer.testing import CliRunner
from wandb_server import Loopback, status

from sae_geometry.cli import app

RUN = "sparsify/gpt2/d8vgjnyc"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_fetch_says_where_the_files_are_and_what_was_resolved(wandb_world: Loopback) -> None:
    result = run("fetch", RUN)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0].endswith("sparsify/gpt2/d8vgjnyc/samples_400000.pt")
    assert "sha256" in lines[0]
    assert "fetching samples_400000.pt" in result.stderr
    weights, config = json.loads(run("fetch", RUN, "--json", "--offline", "-q").stdout)
    assert Path(weights["path"]).stat().st_size == weights["n_bytes"]
    assert config["path"].endswith("final_config.yaml")


def test_fetch_offline_and_unreachable(wandb_world: Loopback) -> None:
    result = run("fetch", RUN, "--offline")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    wandb_world.graphql_fault = status(503)
    result = run("fetch", RUN)
    assert result.exit_code == 1
    assert "503" in result.stderr.splitlines()[-1]


def test_a_path_that_exists_is_taken_and_what_else_it_could_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    result = run("fetch", "a/b")
    assert result.exit_code == 1  # The folder is empty.
    assert "a/b is read as a local path; it could also mean hf://a/b" in result.stderr


def test_runs_as_a_table_and_as_json(wandb_world: Loopback) -> None:
    project(wandb_world)
    result = run("runs", "sparsify/gpt2", "--layer", "6", "--kind", "local")
    assert result.exit_code == 0, result.stderr
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["run", "kind", "layer", "L0", "CE", "increase", "alive", "seed", "state"]
    assert [r.split()[0] for r in rows] == ["wandb:sparsify/gpt2/local1", "wandb:sparsify/gpt2/local0"]
    assert rows[1].split()[1:] == ["local", "6", "20.0", "0.100", "120", "0", "finished"]
    similar = json.loads(run("runs", "sparsify/gpt2", "--similar-to", "local0", "--by", "l0", "--json").stdout)
    assert [r["kind"] for r in similar] == ["local", "e2e", "e2e+ds"]
    assert run("runs", "sparsify").exit_code == 2
    assert run("runs", "sparsify/nothing").exit_code == 1


def test_cache_shows_and_clears(wandb_world: Loopback, cache: Path) -> None:
    assert run("cache").stdout == f"0 runs, 0 bytes in {cache}\n"
    run("fetch", RUN)
    shown = run("cache").stdout
    assert shown.startswith(f"wandb:{RUN}  ")
    assert "samples_400000.pt" in shown
    held = json.loads(run("cache", RUN, "--json").stdout)
    assert held["runs"][0]["address"] == f"wandb:{RUN}"
    assert run("cache", "nobody/no/run", "--clear").exit_code == 1
    assert run("cache", "--clear").stdout == f"{held['runs'][0]['bytes']:,} bytes freed in {cache}\n"
    assert json.loads(run("cache", "--json").stdout)["runs"] == []


def test_drift_of_a_wandb_run_writes_its_table_and_figure(
    wandb_world: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wandb_world.runs[RUN].files["samples_50000.pt"] = wandb_world.runs[RUN].files["samples_400000.pt"]
    result = run("drift", RUN, "--format", "png")
    assert result.exit_code == 0, result.stderr
    (folder,) = tmp_path.glob("drift-*")
    written = sorted(p.name for p in folder.rglob("*") if p.is_file())
    assert written == ["drift.parquet", "drift.png", "report.html", "summary.json"]
    table = pd.read_parquet(folder / "drift.parquet")
    assert sorted(set(table.checkpoint)) == ["samples_400000", "samples_50000"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["kind"] == "Drift"
    assert [r["samples"] for r in summary["checkpoints"]] == [50000, 400000]
    assert "2 checkpoints" in result.stdout


def test_drift_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "states").mkdir()
    shutil.copy(E2E / "samples_400000.pt", tmp_path / "states" / "samples_1.pt")
    result = run(
        "drift", "./states", "--final", str(E2E / "samples_400000.pt"), "--json", "-o", "out", "--format", "svg"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_latents"] == 256
    assert run("drift", "./states").exit_code == 2
