"""Tests of the label options on the command line: what is printed, saved and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app

pytestmark = pytest.mark.usefixtures("blank_figures")
V, D = 60, 12


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Write a model, and two dictionaries made of its token directions."""
    root = tmp_path_factory.mktemp("labels")
    rows = torch.randn(V, D, generator=torch.Generator().manual_seed(0))
    model = root / "model"
    model.mkdir()
    save_file({"lm_head.weight": rows, "model.norm.weight": torch.ones(D)}, model / "model.safetensors")
    vocab = {f"Ġw{i}": i for i in range(V)}
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "decoder": {"type": "ByteLevel"}}))
    for seed in (1, 2):
        noise = 0.05 * torch.randn(V, D, generator=torch.Generator().manual_seed(seed))
        weights = {"W_dec": (rows + noise)[:40], "W_enc": (rows + noise)[:40].T.contiguous(), "b_enc": torch.zeros(40)}
        save_file(weights, root / f"d{seed}.safetensors")
    (root / "mine.csv").write_text("latent,name\n0,because\n1,=1+1\n")
    return root


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_compare_shows_tokens_of_a_model(files, tmp_path):
    said = run("compare", files / "d1.safetensors", files / "d2.safetensors", "--unembed", files / "model",
               "-o", tmp_path / "out", "--format", "png", "--turns", 0)  # fmt: skip
    assert "lm_head.weight times model.norm.weight, centered over the vocabulary" in said
    assert "most alike" in said
    assert "readable (FDR 5%)" in said
    tables, summary = sg.read(tmp_path / "out")
    assert tables["matches"].logit_cosine[:40].min() > 0.8
    assert json.loads(tables["matches"].tokens[5])[0] == " w5"
    assert summary["labels"]["groups"][0]["readable"]["value"] > 0.8


def test_a_table_is_shown_and_must_name_its_run(files, tmp_path):
    both = ("compare", files / "d1.safetensors", files / "d2.safetensors", "-o", tmp_path / "out", "--turns", 0)
    said = run(*both, "--labels", f"d1={files / 'mine.csv'}", "--format", "png")
    assert "name because" in said
    refused = CliRunner().invoke(app, [str(a) for a in (*both, "--overwrite", "--labels", files / "mine.csv")])
    assert refused.exit_code == 2
    assert "does not name a run" in refused.output
    refused = CliRunner().invoke(app, [str(a) for a in (*both, "--overwrite", "--labels", f"d9={files / 'mine.csv'}")])
    assert "no run is named 'd9'; the runs are d1, d2" in refused.output
    assert (tmp_path / "out" / "summary.json").is_file()


def test_tokens_is_a_command_of_its_own(files, tmp_path):
    said = run("tokens", files / "d1.safetensors", "--unembed", files / "model", "--top", 3, "-o", tmp_path / "t")
    assert "Tokens of 'd1'" in said
    assert len(json.loads(sg.read(tmp_path / "t").tables["tokens"].tokens[0])) == 3
    refused = CliRunner().invoke(app, ["tokens", str(files / "d1.safetensors")])
    assert refused.exit_code == 2
    assert "give the model that it was trained on, as --unembed" in refused.output
    shipped = run("tokens", "demo:local-narrow-seed0", "--top", 4, "-o", tmp_path / "demo", "--format", "png")
    assert "Tokens of 'local-narrow-seed0' by SmolLM2" in shipped
    assert len(json.loads(sg.read(tmp_path / "demo").tables["tokens"].tokens[0])) == 4


def test_drift_shows_what_moved(files, tmp_path):
    for n, name in ((100, "d1"), (200, "d2")):
        d, site = sg.load(files / f"{name}.safetensors").directions, "blocks-6-hook_resid_pre"
        weights = {f"{site}.decoder.weight": d.T.contiguous(), f"{site}.encoder.0.weight": d.clone()}
        torch.save(weights, tmp_path / f"samples_{n}.pt")
    said = run("drift", tmp_path, "--unembed", files / "model", "-o", tmp_path / "out", "--format", "png")
    assert "moved most" in said
    assert "tokens" in sg.read(tmp_path / "out").tables["drift"].columns


def test_nearest_shows_the_tokens_and_tables_of_hits(files, tmp_path):
    one, two = files / "d1.safetensors", files / "d2.safetensors"
    how = ("-k", 2, "--turns", 0, "--format", "png", "-o")
    said = run("nearest", f"{one}::latent=5", one, two, "--unembed", files / "model", *how, tmp_path / "a")
    assert said.count(" w5") >= 2
    assert "labels: tokens by model: lm_head.weight" in said
    table = sg.read(tmp_path / "a").tables["nearest"]
    assert [json.loads(text)[0] for text in table.tokens] == [" w5", " w5"]
    said = run("nearest", f"{one}::latent=0", one, two, "--labels", f"d2={files / 'mine.csv'}", *how, tmp_path / "b")
    assert "name because" in said
    table = sg.read(tmp_path / "b").tables["nearest"].set_index("run")["label:name"]
    assert table.isna().tolist() == [True, False]
    assert table["d2"] == "because"
    for labels, why in ((files / "mine.csv", "names no run"), (f"d9={files / 'mine.csv'}", "matches no dictionary")):
        refused = CliRunner().invoke(app, ["nearest", f"{one}::latent=0", str(one), str(two), "--labels", str(labels)])
        assert refused.exit_code == 2
        assert why in refused.output
