"""Tests of a run's checkpoints, by hand and on a real run."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import sae_geometry as sg
from sae_geometry.comparisons.drift import Drift
from sae_geometry.sources import load

E2E = Path(__file__).parents[1] / "sources" / "checkpoints" / "e2e_sae_single" / "samples_400000.pt"
COS = np.sqrt(0.5)


def states(folder: Path, steps: list[np.ndarray]) -> Path:
    """Save a run whose checkpoints have these decoder rows, at 10, 200, 3000, … samples."""
    for k, rows in enumerate(steps):
        tensors = {"h.decoder.weight": torch.from_numpy(rows.T.copy()), "h.encoder.0.weight": torch.from_numpy(rows)}
        torch.save(tensors, folder / f"samples_{(k + 1) * 10 ** (k + 1)}.pt")
    return folder


X, Y, XY = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])


@pytest.fixture
def by_hand(tmp_path: Path) -> Drift:
    """Return three checkpoints of four latents, which are constant, turning until the end, early, and coming back."""
    steps = [[X, X, X, X], [2 * X, XY, Y, Y], [X, Y, Y, X]]
    return sg.drift(states(tmp_path, [np.stack(s) for s in steps]))


def test_cosines_births_and_deaths_by_hand(by_hand: Drift) -> None:
    assert by_hand.labels == ("samples_10", "samples_200", "samples_3000")
    assert by_hand.samples.tolist() == [10, 200, 3000]
    assert by_hand.to_final == pytest.approx(np.array([[1, 0, 0, 1], [1, COS, 1, 0], [1, 1, 1, 1]]), abs=1e-7)
    assert by_hand.to_next == pytest.approx(np.array([[1, COS, 0, 0], [1, COS, 1, 0]]), abs=1e-7)
    assert by_hand.birth.tolist() == [0, 2, 1, 2]
    assert by_hand.death.tolist() == [0, -1, 1, -1]


def test_the_threshold_decides_when_a_latent_is_born(by_hand: Drift, tmp_path: Path) -> None:
    assert sg.drift(tmp_path, threshold=0.7).birth.tolist() == [0, 1, 1, 2]


def test_summary_and_table(by_hand: Drift) -> None:
    summary = by_hand.summary()
    assert [r["share_born"] for r in summary["checkpoints"]] == [0.25, 0.5, 1.0]
    assert [r["share_standing_still"] for r in summary["checkpoints"]] == [0.25, 0.5, 0.5]
    assert summary["n_known_dead"] is None
    table = by_hand.to_pandas()
    assert len(table) == 12
    second = table[(table.latent_id == 2) & (table.checkpoint == "samples_200")].iloc[0]
    assert (second.cosine_to_final, second.birth, second.death) == (pytest.approx(1.0), "samples_200", "samples_200")
    assert table[table.latent_id == 1].death.isna().all()
    assert table[table.checkpoint == "samples_3000"].cosine_to_next.isna().all()
    assert "3 checkpoints" in repr(by_hand)


def test_turning_everything_changes_nothing(by_hand: Drift, tmp_path: Path) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    other = tmp_path / "turned"
    other.mkdir()
    steps = [[X, X, X, X], [2 * X, XY, Y, Y], [X, Y, Y, X]]
    turned = sg.drift(states(other, [3.0 * np.stack(s) @ rotation for s in steps]))
    assert turned.to_final == pytest.approx(by_hand.to_final, abs=1e-7)
    assert turned.birth.tolist() == by_hand.birth.tolist()


def test_real_states_and_a_final_one_from_elsewhere(tmp_path: Path) -> None:
    for n in (102400, 307200):
        shutil.copy(E2E, tmp_path / f"samples_{n}.pt")
    drift = sg.drift(tmp_path, E2E)
    assert drift.labels == ("samples_102400", "samples_307200", "samples_400000")
    assert drift.to_final == pytest.approx(np.ones((3, 256)))
    assert set(drift.birth.tolist()) == set(drift.death.tolist()) == {0}
    assert drift.final.fingerprint == load(E2E, "all").fingerprint
    assert drift.summary()["n_known_dead"] == drift.summary()["n_known_dead_that_stand_still"] == 16


def test_against_the_dense_definition() -> None:
    a, b = load("demo:local-seed0", "all"), load("demo:local-seed1", "all")
    drift = sg.drift(["demo:local-seed0", "demo:local-seed1"])
    dense = (a.directions.double() @ b.directions.double().T).diagonal().numpy()
    assert drift.to_final[0] == pytest.approx(dense, abs=1e-7)
    assert drift.labels == ("local-seed0", "local-seed1")
    assert drift.samples.tolist() == [-1, -1]


def test_states_in_memory_are_followed_too() -> None:
    first, last = load("demo:local-seed0", "all"), load("demo:local-seed1", "all")
    drift = sg.drift(["demo:local-seed0", "demo:local-seed1"])
    for made in (sg.drift([first, last]), sg.drift([first], last), sg.drift(["demo:local-seed0"], last)):
        pd.testing.assert_frame_equal(made.to_pandas(), drift.to_pandas())
    assert sg.drift([first.renamed("x"), last.renamed("x")]).labels == ("x", "x (2)")


def test_a_demo_is_followed_from_its_earlier_states() -> None:
    drift = sg.drift("demo:local-narrow-seed0")
    assert drift.labels == ("samples_51200", "samples_204800", "samples_819200", "local-narrow-seed0")
    assert (np.diff(np.median(drift.to_final, axis=1)) > 0).all()


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not checkpoints of the same run"):
        sg.drift(["demo:local-seed0", "demo:local-narrow-seed0"])
    with pytest.raises(ValueError, match="at least two checkpoints"):
        sg.drift(["demo:local-seed0"])
    with pytest.raises(ValueError, match="has no checkpoints"):
        sg.drift(tmp_path)
    with pytest.raises(ValueError, match="has only one checkpoint"):
        sg.drift("demo:local-seed0")
    with pytest.raises(ValueError, match="threshold must lie"):
        sg.drift(["demo:local-seed0", "demo:local-seed1"], threshold=2.0)


def test_the_figure_draws_on_the_axes_given(by_hand: Drift) -> None:
    _, ax = plt.subplots()
    assert by_hand.plot(ax) is ax
    median, born = ax.get_lines()
    assert median.get_ydata() == pytest.approx(np.median(by_hand.to_final, axis=1))
    assert list(born.get_ydata()) == [0.25, 0.5, 1.0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "200", "3k"]
    ax.figure.draw_without_rendering()
    names = ax.get_legend().get_texts()
    assert [t.get_text().partition(" (")[0] for t in names][::3] == ["median", "share born"]
    assert all(ax.bbox.containsy(t.get_window_extent().y0) for t in names), "without a layout, labels should be inside"
    plt.close("all")
