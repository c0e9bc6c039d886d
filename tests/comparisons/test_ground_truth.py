"""Tests of the recovery of known features, which also test significance end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import dense_cosines, unit
from scipy.optimize import linear_sum_assignment
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.cost.estimate import estimate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from populations import POPULATIONS, blurred

sys.path.pop()


def learned(kind: str, seed: int = 0, n: int = 500, d: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 500 latents, 500 features, and the feature that each latent is a noisy copy of (−1 for none)."""
    rng = np.random.default_rng(seed)
    features, latents = (POPULATIONS[kind](d)(n, rng) for _ in range(2))
    copied = np.full(n, -1)
    copied[rng.permutation(n)[: n // 2]] = rng.permutation(n)[: n // 2]
    known = copied >= 0
    latents[known] = blurred(features[copied[known]], 0.85, rng)
    return latents.astype(np.float32), features.astype(np.float32), copied


@pytest.mark.parametrize("kind", ["isotropic", "mixture", "families"])
def test_significant_latents_are_features_and_most_features_are_found(kind):
    false, power = [], []
    for seed in range(1):
        latents, features, copied = learned(kind, seed)
        made = sg.truth(latents, features)
        m = made.comparison.nearest_a_to_b
        right = m.partner_row == copied
        false.append((m.significant & ~right).sum() / max(1, m.significant.sum()))
        power.append((m.significant & right).sum() / (copied >= 0).sum())
        assert made.significant.precision == m.significant.mean()
    assert np.mean(false) <= 0.07
    assert np.mean(power) >= 0.8


def test_every_number_is_its_definition(rng):
    features = unit(rng.standard_normal((30, 12))).astype(np.float32)
    latents = np.concatenate([features[:10], -features[10:14], features[:2], unit(rng.standard_normal((4, 12)))])
    made = sg.truth(latents, features, threshold=0.9)
    c = dense_cosines(latents.astype(np.float32), features)
    precision, recall = (c.max(axis=1) > 0.9).mean(), (c.max(axis=0) > 0.9).mean()
    assert (made.above.precision, made.above.recall) == (precision, recall)
    assert made.above.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert made.uniqueness == len(set(c.argmax(axis=1))) / len(latents)
    rows, cols = linear_sum_assignment(np.abs(c), maximize=True)
    assert made.mcc == pytest.approx(np.abs(c)[rows, cols].mean(), abs=1e-6)
    assert sg.truth(latents, features, threshold=0.9, signed=False).above.recall == (np.abs(c).max(axis=0) > 0.9).mean()


def test_nothing_recovered_is_zero_and_a_bad_threshold_is_refused():
    made = sg.truth(np.eye(6)[:3], np.eye(6)[3:])
    assert (made.above.precision, made.above.recall, made.above.f1) == (0, 0, 0)
    with pytest.raises(ValueError, match="in −1…1; got 2"):
        sg.truth(np.eye(3), np.eye(3), threshold=2.0)


class FeatureDictionary(torch.nn.Module):
    """Dictionary of features as in SAELens: the columns of a linear layer."""

    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(*features.shape)
        self.embed.weight.data = torch.from_numpy(features.T.copy())

    @property
    def feature_vectors(self) -> torch.Tensor:
        return self.embed.weight.T


class SyntheticModel(torch.nn.Module):
    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        self.cfg, self.feature_dict = {"num_features": len(features)}, FeatureDictionary(features)


@pytest.mark.parametrize("of", [FeatureDictionary, SyntheticModel])
def test_a_synthetic_model_is_its_features(rng, of):
    # The matrix is square, so only the attribute states which axis holds the features.
    features = unit(rng.standard_normal((14, 14))).astype(np.float32)
    made = sg.truth(features[3:], of(features), threshold=0.999)
    assert made.above.precision == 1
    assert made.above.recall == pytest.approx(11 / 14)
    np.testing.assert_array_equal(made.comparison.nearest_a_to_b.partner, np.arange(3, 14))


def test_the_command_prints_and_saves_them(tmp_path):
    latents, features, _ = learned("isotropic", n=60, d=24)
    np.save(tmp_path / "latents.npy", latents)
    np.save(tmp_path / "features.npy", features)
    paths = [str(tmp_path / name) for name in ("latents.npy", "features.npy")]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["truth", *paths, "-q", "--format", "png", "-o", str(out), "--threshold", "0.8"])
    assert done.exit_code == 0, done.output
    assert "precision" in done.stdout
    assert "uniqueness" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    made = sg.truth(latents, features, threshold=0.8)
    assert summary["mcc"] == pytest.approx(made.mcc)
    assert summary["above_threshold"]["recall"] == made.above.recall
    assert {"margin", "q_value"} <= set(sg.read(out)[0]["matches"].columns)
    assert estimate([latents, features], "truth", probe_seconds=0.01).n_sweeps > 4
