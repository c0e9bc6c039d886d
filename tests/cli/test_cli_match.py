"""Tests of `sae-geometry match` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import oracles
import pytest
from memo import remember
from safetensors.numpy import save_file
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.match_report import schema

A, B = "./a.safetensors", "./b.safetensors"


@pytest.fixture
def run(tmp_path, monkeypatch, blank_figures):
    """Return a function that runs a command in a folder with two small dictionaries that have encoders."""
    monkeypatch.chdir(tmp_path)
    for name, decoder in zip("ab", oracles.related_decoders(np.random.default_rng(0), 47, 60, 12, 30), strict=True):
        rows = decoder.astype(np.float32)
        weights = {"W_dec": rows, "W_enc": np.ascontiguousarray(rows.T), "b_enc": rows[:, 0].copy()}
        save_file(weights, f"{name}.safetensors")
    remember(monkeypatch)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_json_is_the_report_and_fits_the_schema(run):
    jsonschema = pytest.importorskip("jsonschema")
    result = run("match", A, B, "--json", "--threshold", "0.5")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    jsonschema.validate(record, schema())
    expected = sg.match(A, B, thresholds=[0.5]).record
    assert record["pw_mcc"] == expected["pw_mcc"]
    assert record["shared"] == expected["shared"]
    for name in ("decoder_signed", "decoder_absolute", "encoder_signed"):
        assert record["matchings"][name]["pairs"] == expected["matchings"][name]["pairs"]
    assert record["provenance"]["software"]["torch"]
    assert record["provenance"]["command"].startswith("sae-geometry")


def test_words_give_both_formulas_and_the_proof(run):
    result = run("match", A, B)
    assert result.exit_code == 0, result.stderr
    for part in ("PW-MCC 0.", "; absolute 0.", "proven optimal", "cosine > 0.7", "with the same partner"):
        assert part in result.stdout
    assert len(result.stdout.splitlines()) <= 20
    assert {"match.json", "matches.parquet", "report.html", "shared.csv", "only-a.csv", "only-b.csv"} <= {
        p.name for p in Path("match-a-b").iterdir()
    }


def test_out_writes_the_record_and_never_over_another(run):
    result = run("match", A, B, "-o", "here", "--json")
    assert json.loads(Path("here/match.json").read_text()) == json.loads(result.stdout)
    again = run("match", A, B, "-o", "here")
    assert again.exit_code == 2
    assert "not empty" in again.stderr
    assert run("match", A, B, "-o", "here", "--overwrite", "-q").exit_code == 0
    assert run("within", A, "-o", "here", "--overwrite", "-q").exit_code == 0
    assert not Path("here/match.json").exists(), "the record was removed with its results"


def test_fail_under_and_wrong_use(run):
    assert run("match", A, B, "--fail-under", "0.05").exit_code == 0
    assert run("match", A, B, "--fail-under", "0.99").exit_code == 3
    wrong = run("match", A, B, "--threshold", "7")
    assert wrong.exit_code == 2
    assert "in −1…1" in wrong.stderr


def test_stopping_at_a_gap_is_said(run):
    # Every latent of one side prefers the same few of the other, so one round cannot solve it.
    rng = np.random.default_rng(0)
    np.save("crowd.npy", np.eye(1, 16) + 0.3 * rng.standard_normal((300, 16)))
    np.save("favorites.npy", np.eye(1, 16) + rng.random((300, 1)) * rng.standard_normal((300, 16)))
    result = run("match", "./crowd.npy", "./favorites.npy", "--max-gap", "0.5", "--json")
    record = json.loads(result.stdout)
    made = record["matchings"]["decoder_signed"]
    assert made["certificate"]["stopped"] == "max_gap"
    assert made["n_matched"] == min(record["inputs"][side]["n_latents"] for side in "ab")
