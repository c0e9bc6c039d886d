"""Tests of measuring, packing and queueing the demo runs, without a language model."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from small_training import LENGTH, VOCABULARY, D, N, small

import sae_geometry as sg
from analyses.common.errors import AnalysisError
from analyses.demo.train import activations, curves, measuring, packing
from analyses.demo.train.__main__ import main
from analyses.demo.train.activations import FIRST, Cache
from analyses.demo.train.autoencoder import Autoencoder
from analyses.demo.train.plan import RUNS
from analyses.demo.train.training import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (N, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sae() -> Autoencoder:
    return Autoencoder(torch.zeros(D), 24, 1)


def test_losses_are_those_of_the_definition(sae, data, tokens, tail):
    found = measuring.measure(sae, data, tokens, tail, scale=0.5)
    here = torch.from_numpy(data.here.astype(np.float32))
    with torch.no_grad():
        reconstruction, codes = sae(here[:, FIRST:] * 0.5)
        for name, rest in (
            ("ce_model", here[:, FIRST:]),
            ("ce", reconstruction / 0.5),
            ("ce_zero_ablation", torch.zeros_like(reconstruction)),
        ):
            probability = torch.softmax(tail.logits(tail(torch.cat([here[:, :FIRST], rest], 1))[-1]), -1)
            losses = [
                -float(probability[i, t, tokens[i, t + 1]].log()) for i in range(N) for t in range(FIRST, LENGTH - 1)
            ]
            assert found[name] == pytest.approx(np.mean(losses), rel=1e-4)
    x = (here[:, FIRST:] * 0.5).flatten(0, 1)
    error = (reconstruction.flatten(0, 1) - x).square().sum()
    assert found["explained_variance"] == pytest.approx(1 - float(error / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert found["l0"] == pytest.approx(float((codes > 0).sum(-1).float().mean()))
    assert found["held_out_tokens"] == N * (LENGTH - FIRST)
    recovered = (found["ce_zero_ablation"] - found["ce"]) / (found["ce_zero_ablation"] - found["ce_model"])
    assert found["loss_recovered"] == pytest.approx(recovered)


def test_firing_and_labels_are_those_of_a_plain_count(sae, data, tokens):
    frequency, label, n = measuring.firing(sae, data, tokens, scale=0.5)
    x = torch.from_numpy(data.here[:, FIRST:].astype(np.float32)).flatten(0, 1) * 0.5
    codes = sae(x)[1].detach()
    ids = tokens[:, FIRST:].flatten()
    assert n == len(codes)
    torch.testing.assert_close(frequency, (codes > 0).sum(0) / n)
    for latent in range(24):
        best = codes[:, latent].argsort(descending=True)[: measuring.LABELS]
        wanted = [int(ids[i]) if codes[i, latent] > 0 else -1 for i in best]
        assert label[latent].tolist() == wanted


def finished(folder, run, data, tail):
    """Train and measure a small run in the same way as the stages."""
    train(run, data, tail, folder / run.name, say=lambda _: None)
    measured = {"ce": 3.5, "ce_model": 3.0, "ce_zero_ablation": 9.0, "l0": 4.0, "alive": 0.75, "activation_scale": 0.5}
    label = torch.tensor([[3, -1]] * run.n_latents)
    measuring.write(folder / run.name, measured, torch.full((run.n_latents,), 0.25), label, lambda t: f"<{t}>")
    return measured


def test_a_packed_file_carries_weights_and_measures(data, tail, tmp_path):
    run = replace(small("e2e+ds"), name="e2e-ds-seed1")
    measured = finished(tmp_path, run, data, tail)
    assert json.loads((tmp_path / run.name / "labels.json").read_text()) == [["<3>"]] * run.n_latents
    size = packing.pack(run, tmp_path, tmp_path / "packed")
    path = tmp_path / "packed/e2e-ds-seed1.safetensors"
    with safe_open(path, "pt") as file:
        said, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert size == path.stat().st_size
    names = {name: "alive_share" if name == "alive" else name for name in measured}
    assert {name: float(said[names[name]]) for name in measured} == measured
    assert (float(said["ce_increase"]), said["kind"], int(said["init"])) == (0.5, "e2e+ds", run.init)
    state = torch.load(tmp_path / run.name / "state.pt", weights_only=True)["weights"]
    torch.testing.assert_close(weights["W_dec"].float(), state["W_dec"], rtol=2**-8, atol=1e-6)
    assert weights["W_dec"].dtype == torch.float16
    assert weights["frequency"].tolist() == [0.25] * run.n_latents
    assert sg.load(path).n_latents == run.n_latents


def test_packed_checkpoints_can_be_followed(data, tail, tmp_path, monkeypatch):
    monkeypatch.setattr("analyses.demo.train.training.MILESTONES", (4, 9))
    monkeypatch.setattr(packing, "DRIFT", {"local-seed0": (4, 9)})
    run = replace(small("local"), name="local-seed0")
    finished(tmp_path, run, data, tail)
    packing.pack(run, tmp_path, tmp_path / "packed")
    drift = sg.drift(str(tmp_path / "packed/local-seed0-checkpoints"))
    assert drift.samples.tolist() == [4 * 512, 9 * 512]


def test_a_run_that_is_not_finished_is_not_packed(data, tail, tmp_path):
    run = small("local")
    train(run, data, None, tmp_path / run.name, stop_at=3, say=lambda _: None)
    with pytest.raises(AnalysisError, match=r"local-seed0 is not finished; .* resumes it"):
        packing.pack(run, tmp_path, tmp_path / "packed")


def test_curves_compare_the_seeds_of_an_objective_step_by_step(data, tail, tmp_path, monkeypatch):
    monkeypatch.setattr("analyses.demo.train.training.MILESTONES", (4, 9))
    for name in ("local-seed0", "local-seed1", "local-init-e2e-seed0"):
        train(replace(next(r for r in RUNS if r.name == name), n_latents=24, n_steps=14), data, tail, tmp_path / name)
    rows = curves.curves(tmp_path)
    assert [row[:4] for row in rows] == [("local", "local-seed0", "local-seed1", step) for step in (4, 9)]
    a, b = (torch.load(tmp_path / f"local-seed{i}/checkpoints/step-9.pt")["W_dec"].double() for i in range(2))
    cosine = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    assert rows[1][4] == pytest.approx(float(cosine.max(1).values.mean()), abs=1e-6)
    with (tmp_path / "curves.csv").open() as file:
        assert next(csv.reader(file)) == list(curves.FIELDS)


def test_caching_resumes_where_it_stopped(tail, tokens, tmp_path):
    table = torch.randn(VOCABULARY, D, generator=torch.Generator().manual_seed(2))
    calls = []

    def residuals(ids):
        calls.append(len(ids))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [table[ids], *tail(table[ids])]

    many = tokens.repeat(20, 1).numpy().astype(np.int32)
    with pytest.raises(KeyboardInterrupt):
        activations.cache(many, residuals, tmp_path, lambda _: None)
    activations.cache(many, residuals, tmp_path, lambda _: None)
    cached = activations.read(tmp_path)
    ids = torch.from_numpy(many).long()
    assert cached.later.shape == (len(many), LENGTH, 2, D)
    np.testing.assert_array_equal(cached.here, table[ids].half().numpy())
    activations.cache(many, lambda _: pytest.fail("a finished stage should not run again"), tmp_path, lambda _: None)


def test_an_unknown_run_is_refused(tmp_path, capsys):
    assert main(["run", "local-seed9", "--folder", str(tmp_path)]) == 2
    assert "there is no run 'local-seed9'; the runs are local-seed0" in capsys.readouterr().err


def test_the_queue_stops_on_sigterm_with_everything_saved(tmp_path):
    folder = tmp_path / "activations/train"
    folder.mkdir(parents=True)
    for name in Cache._fields:
        shape = (16, 64, 576) if name == "here" else (16, 64, 1, 1)
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=shape).astype(np.float16))
    command = [sys.executable, "-m", "analyses.demo.train", "all", "local-narrow-seed0", "--folder", str(tmp_path)]
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    queue = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, stdout=subprocess.PIPE
    )
    state, milestone = tmp_path / "runs/local-narrow-seed0/state.pt", "runs/local-narrow-seed0/checkpoints/step-50.pt"
    deadline = time.monotonic() + 300
    while not (tmp_path / milestone).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    queue.send_signal(signal.SIGTERM)
    said = queue.communicate(timeout=200)[0].decode()
    assert queue.returncode == 130
    assert "local-narrow-seed0 ended with exit code 130" in said
    assert 50 <= torch.load(state, weights_only=True)["step"] < 4000
