"""Tests of folders, labels, demos, and objects in memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CHECKPOINTS, E2E
from safetensors import safe_open

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources import (
    LayoutError,
    SourceError,
    as_dictionary,
    checkpoints,
    demos,
    fetch,
    load,
    runs,
    similar_runs,
)

W = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


def test_the_last_checkpoint_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    content = (E2E / "samples_400000.pt").read_bytes()
    for name in ("samples_50000.pt", "samples_400000.pt", "samples_9.pt"):
        (tmp_path / name).write_bytes(content)
    assert str(load(tmp_path).address).endswith("samples_400000.pt")
    numbers = [a.rpartition("_")[2] for a in checkpoints(tmp_path)]
    assert numbers == ["9.pt", "50000.pt", "400000.pt"]
    assert len(checkpoints(E2E)) == 1
    with pytest.raises(SourceError, match="has no checkpoints"):
        checkpoints(CHECKPOINTS / "saelens_topk")


def test_a_folder_deeper_down(tmp_path: Path) -> None:
    assert load(CHECKPOINTS / "llama_scope").layout == "llama_scope"
    assert load(CHECKPOINTS / "llama_scope").name == "Llama3_1-8B-Base-L15R-8x"
    with pytest.raises(SourceError, match="contains no weights"):
        load(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sae.pt").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"contains 2 weights files; give one of a/sae.pt, b/sae.pt"):
        load(tmp_path)


def test_folders_that_link_to_each_other_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_geometry.sources.local._MAX_FOLDERS", 100)
    for i in range(20):
        (tmp_path / f"link{i}").symlink_to(tmp_path)
    with pytest.raises(SourceError, match="after 100 folders and links to folders"):
        load(tmp_path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("x.pt", ".metadata", "x.safetensors.index.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SourceError, match="is not a file"):
            load(tmp_path / name)
    with pytest.raises(SourceError, match="is not a file"):
        fetch(tmp_path / "x.pt")
    os.mkfifo(tmp_path / "cfg.json")
    np.save(tmp_path / "x.npy", W)
    assert load(tmp_path / "x.npy").n_latents == 7


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        load(tmp_path / "nothing.pt")
    with pytest.raises(SourceError, match="does not exist"):
        load("runs/nothing/samples_1.pt")
    with pytest.raises(SourceError, match="does not exist"):
        load("~no-user-of-this-name/samples_1.pt")


def test_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKPOINTS)
    assert load("saelens_standard").name == "saelens_standard"
    assert load("mine=saelens_standard").name == "mine"
    assert load("mine=saelens_standard", name="other").name == "other"


def test_alive_or_all() -> None:
    alive = load(CHECKPOINTS / "saelens_standard")
    every = load(CHECKPOINTS / "saelens_standard", "all")
    assert (alive.n_latents, every.n_latents) == (232, 256)
    assert (alive.alive.n_dropped_dead, every.alive.n_dropped_dead) == (24, 0)
    assert load(CHECKPOINTS / "saelens_topk").alive.source == "unknown"


def test_demos_load_quickly_and_know_themselves() -> None:
    load("demo:local-seed0")
    for demo in demos():
        seconds = []
        for _ in range(3):
            start = time.process_time()  # CPU time does not depend on how busy the machine is.
            d = load(demo.address, "all")
            seconds.append(time.process_time() - start)
        assert min(seconds) < 1  # It takes 0.07 s on an idle machine, and three times as much next to other tests.
        assert (d.n_latents, d.d_in, d.name) == (demo.n_latents, demo.d_in, demo.name)
        assert (d.metadata["kind"], d.metadata["seed"]) == (demo.kind, demo.seed)
        assert (d.model, d.hook_point) == ("SmolLM2-135M-Instruct", "blocks.24.hook_resid_pre")
        with safe_open(fetch(demo.address)[0].path, "pt") as file:
            assert ("W_enc" in file.metadata()) == (d.encoder_directions is not None)
    assert load("demo:local-seed0").alive.n_tokens == 253_952
    with pytest.raises(SourceError, match="the demos are e2e-ds-seed0"):
        load("demo:x")


def test_the_demo_runs_are_paired_by_loss_as_the_papers_are() -> None:
    found = runs("demo", kind="e2e+ds")
    assert [r.address for r in found] == ["demo:e2e-ds-seed1", "demo:e2e-ds-seed0"]  # by L0
    own, *others = similar_runs("demo:e2e-ds-seed0", runs("demo"))
    assert own == found[1]
    assert {r.kind for r in others} == {"local", "e2e"}
    assert all(abs((r.ce_increase or 9) - (own.ce_increase or 0)) < 0.08 for r in others)


def test_fetch_of_what_is_here() -> None:
    (weights,) = fetch("demo:local-seed0")
    assert weights.n_bytes == weights.path.stat().st_size
    assert len(weights.sha256) == 64


def test_whatever_is_in_hand() -> None:
    made = Dictionary.from_decoder(W, latent_axis=0, name="made")
    assert as_dictionary(made) is made
    assert as_dictionary(made, name="x").name == "x"
    for rows in (W, torch.from_numpy(W)):
        d = as_dictionary(rows)
        assert d.fingerprint == made.fingerprint
        assert any("a bare array: its rows were taken as latents" in note for note in d.notes)
    mapping = as_dictionary({"W_dec": W, "W_enc": W.T})
    assert mapping.encoder_directions is not None
    assert torch.equal(mapping.encoder_directions, mapping.directions)
    cfg = SimpleNamespace(to_dict=lambda: {"metadata": {"hook_name": "h", "model_name": "m"}})
    sae = as_dictionary(SimpleNamespace(W_dec=torch.nn.Parameter(torch.from_numpy(W)), W_enc=None, cfg=cfg))
    assert (sae.hook_point, sae.model, sae.encoder_directions) == ("h", "m", None)
    assert as_dictionary("demo:local-narrow-seed0").n_latents == 512
    for nothing in (None, 3, {}, object()):
        with pytest.raises(ValueError, match="cannot make a dictionary from"):
            as_dictionary(nothing)
    for unlike in ([1, 2], {"W": W}):
        with pytest.raises(LayoutError, match="holds"):
            as_dictionary(unlike)
    with pytest.raises(LayoutError, match="no known layout fits the mapping"):
        as_dictionary({"W_dec": W, "W_enc": W[:6, :3]})


def test_arguments_are_checked() -> None:
    with pytest.raises(SourceError, match="neither an existing path"):
        load("nothing-here")
    with pytest.raises(SourceError, match=r"contains one dictionary, at blocks.24.hook_resid_pre: leave out ::wrong"):
        load("demo:local-seed0::wrong")
    assert load("demo:local-seed0::blocks.24.hook_resid_pre").n_latents == 1536
    assert load("demo:local-seed0", encoder=False).encoder_directions is None


def test_folders_of_runs_are_read_by_their_paths_and_what_else_they_could_be_is_said(tmp_path, monkeypatch):
    """`seeds saes/*` gives two words with a slash in between, which could also be a repository."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        folder = tmp_path / "saes" / f"seed{seed}"
        folder.mkdir(parents=True)
        np.save(folder / "decoder.npy", np.eye(3, 5))
    said: list[str] = []
    loaded = [load(f"saes/seed{seed}", echo=said.append) for seed in range(2)]
    assert [d.n_latents for d in loaded] == [3, 3]
    assert "saes/seed1 is read as a local path; it could also mean hf://saes/seed1" in said
