"""Tests of training the demo dictionaries, on random activations and a small random model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import D, small

from analyses.common.errors import AnalysisError
from analyses.demo.train.activations import FIRST
from analyses.demo.train.autoencoder import Autoencoder
from analyses.demo.train.objectives import end_to_end_loss, local_loss
from analyses.demo.train.plan import RUNS
from analyses.demo.train.training import activation_scale, batch_at, batch_loss, center, schedule, train


@pytest.mark.parametrize("objective", ["local", "e2e", "e2e+ds"])
def test_a_stopped_run_resumes_to_the_same_weights_bit_for_bit(objective, data, tail, tmp_path):
    run = small(objective)
    assert train(run, data, tail, tmp_path / "whole", say=lambda _: None)
    assert not train(run, data, tail, tmp_path / "parts", stop_at=5, say=lambda _: None)
    asked = iter([False] * 4 + [True] * 9)
    assert not train(run, data, tail, tmp_path / "parts", stopped=lambda: next(asked), say=lambda _: None)
    assert train(run, data, tail, tmp_path / "parts", say=lambda _: None)
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == run.n_steps
    for name, value in whole["weights"].items():
        assert torch.equal(value, parts["weights"][name])
    assert whole["log"] == parts["log"]
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "parts/log.csv").read_text()


def test_a_folder_of_other_settings_is_refused(data, tmp_path):
    run = small("local")
    train(run, data, None, tmp_path, stop_at=2, say=lambda _: None)
    with pytest.raises(AnalysisError, match=r"different l1.*set l1 back"):
        train(replace(run, l1=0.5), data, None, tmp_path, say=lambda _: None)


def test_a_run_through_the_model_needs_the_model(data, tmp_path):
    with pytest.raises(AnalysisError, match="needs its later blocks"):
        train(small("e2e"), data, None, tmp_path, say=lambda _: None)


def test_the_batches_of_a_pass_hold_everything_once():
    first = np.concatenate([batch_at(4, step, 30, 5) for step in range(6)])
    second = np.concatenate([batch_at(4, step, 30, 5) for step in range(6, 12)])
    assert sorted(first) == sorted(second) == list(range(30))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[:5], batch_at(5, 0, 30, 5))


def test_the_learning_rate_rises_stays_and_falls():
    rates = [schedule(step, 4000) for step in range(4000)]
    assert rates[0] == 0.01
    assert rates[99] == rates[2000] == 1
    assert rates[3400] == pytest.approx(0.5)
    assert min(rates[3000:]) == 0.02


def test_local_loss_is_what_it_says():
    sae, x = Autoencoder(torch.full((D,), 0.1), 24, 1), torch.randn(7, D)
    loss, parts = local_loss(sae, x, l1=0.3)
    codes = torch.relu(x @ sae.W_enc.T + sae.b_enc)
    rows = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)
    error = sum(((codes[i] @ rows + sae.b_dec - x[i]) ** 2).sum().item() for i in range(7)) / (7 * D)
    assert parts["mse"].item() == pytest.approx(error, rel=1e-5)
    assert loss.item() == pytest.approx(error + 0.3 * codes.sum().item() / 7, rel=1e-5)
    assert parts["l0"].item() == pytest.approx((codes > 0).sum().item() / 7)


def test_end_to_end_loss_is_what_it_says(data, tail):
    sae = Autoencoder(torch.full((D,), 0.1), 24, 1)
    here, later = data.rows(slice(0, 3))
    loss, parts = end_to_end_loss(sae, here, later, [2, 5], tail, scale=0.5, l1=0.3, downstream=2.0)
    with torch.no_grad():
        spliced = here.clone()
        spliced[:, FIRST:] = sae(here[:, FIRST:] * 0.5)[0] / 0.5
        streams = tail(spliced)
        p = torch.softmax(later[:, [2, 5], -1] @ tail.head, -1)
        q = torch.softmax(streams[-1][:, [2, 5]] @ tail.head, -1)
    kl = float((p * (p / q).log()).sum(-1).mean())
    share = float(((streams[0] - later[:, :, 0])[:, FIRST:] ** 2).mean() / (later[:, FIRST:, 0] ** 2).mean())
    assert parts["kl"].item() == pytest.approx(kl, rel=1e-4)
    assert parts["downstream"].item() == pytest.approx(share, rel=1e-4)
    assert loss.item() == pytest.approx(kl + 0.3 * parts["l1"].item() + 2 * share, rel=1e-4)


def test_end_to_end_loss_is_zero_for_a_perfect_reconstruction(data, tail):
    class Perfect:
        def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, torch.zeros(*x.shape[:-1], 4)

    here, later = data.rows(slice(0, 3))
    loss, _ = end_to_end_loss(Perfect(), here, later, [2, 4], tail, scale=0.7, l1=1.0, downstream=1.0)
    assert abs(loss.item()) < 1e-4


def test_end_to_end_gradient_reaches_every_weight(data, tail):
    sae = Autoencoder(torch.full((D,), 0.1), 24, 1)
    here, later = data.rows(slice(0, 3))
    end_to_end_loss(sae, here, later, [3, 9], tail, scale=1.0, l1=0.0, downstream=0.0)[0].backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in sae.parameters())


def test_a_run_starts_at_the_mean_of_its_activations(data):
    scale = activation_scale(data)
    mean = center(data, scale)
    x = torch.from_numpy(data.here[:, FIRST:].astype(np.float32)) * scale
    torch.testing.assert_close(mean, x.mean((0, 1)), rtol=1e-4, atol=1e-5)
    reconstruction, codes = Autoencoder(mean, 24, 1)(mean)
    torch.testing.assert_close(reconstruction, mean)
    assert codes.max().item() < 1e-6


def test_activations_are_scaled_to_the_root_of_the_width(data):
    x = data.here[:200, FIRST:].astype(np.float64) * activation_scale(data)
    assert np.linalg.norm(x, axis=-1).mean() == pytest.approx(D**0.5, rel=1e-4)


def test_only_the_pair_that_is_named_so_shares_its_start():
    starts = {}
    for run in RUNS:
        starts.setdefault((run.init, run.n_latents), []).append(run.name)
    assert [names for names in starts.values() if len(names) > 1] == [["local-init-e2e-seed0", "e2e-seed0"]]
    assert len({r.order for r in RUNS}) == len(RUNS)


def test_the_sparsity_penalty_rises_gradually(data):
    run = replace(small("local"), n_steps=20, l1=0.5)
    sae = Autoencoder(torch.zeros(D), 24, 1)
    for step, share in ((0, 0.5), (1, 1.0), (7, 1.0)):
        loss, parts = batch_loss(run, sae, data, None, step, scale=1.0)
        assert loss.item() == pytest.approx(parts["mse"].item() + share * 0.5 * parts["l1"].item(), rel=1e-5)
