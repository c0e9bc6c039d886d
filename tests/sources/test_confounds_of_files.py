"""Tests of confounds that files state: scaled inputs, the start of training, and sparsity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from space_cases import N, put, sae, with_config

import sae_geometry as sg
from sae_geometry.pairwise.confounds import confound_audit
from sae_geometry.sources import load


@pytest.mark.parametrize(
    "config",
    [
        {"normalize_activations": "zscore"},
        {"input_norm": "z-score"},
        {"standardize_inputs": True},
        {"cfg": {"zscore": True}},
    ],
)
def test_z_scored_inputs_are_noted_and_flagged_against_others(config: dict[str, Any], tmp_path: Path) -> None:
    hook = {"hook_name": "blocks.1.hook_resid_pre", "model_name": "m"}
    a, b = with_config(tmp_path / "a", config | hook), with_config(tmp_path / "b", hook, seed=1)
    assert any("z-scored" in note for note in load(a).notes)
    assert confound_audit(load(a), load(b)).finding("normalization").flagged
    assert not confound_audit(load(a), load(a)).finding("normalization").flagged
    assert not any("z-scored" in note for note in load(b).notes)
    esmc = sg.as_dictionary({**sae(), "idf": torch.ones(N), "max": torch.ones(N)})
    assert any("z-scored" in note for note in esmc.notes)
    assert esmc.metadata["inputs"] == load(a).metadata["inputs"], "an implied scale should equal a stated one"


def test_how_far_each_moved_from_its_own_start(tmp_path: Path) -> None:
    start, final = sae(0), sae(1)
    run = tmp_path / "run"
    put(run / "samples_0.pt", start)
    mixed = start["W_dec"] / start["W_dec"].norm(dim=1, keepdim=True)
    near = final | {"W_dec": mixed + 0.1 * final["W_dec"]}
    put(run / "samples_5000.pt", near)
    unit = near["W_dec"] / near["W_dec"].norm(dim=1, keepdim=True)
    expected = float((unit * mixed).sum(dim=1).double().mean())
    moved = load(run)
    assert moved.metadata["cosine_to_start"] == pytest.approx(expected, abs=1e-6)
    other = load(put(tmp_path / "b" / "ae.pt", final))
    found = confound_audit(moved, other).finding("moved from start")
    assert (found.a, found.b, found.verdict, found.flagged) == (
        f"mean cosine {expected:.3f}", "no step-0 checkpoint", "shared", True,
    )  # fmt: skip
    put(run / "samples_9000.pt", final)
    far = confound_audit(load(run), other).finding("moved from start")
    assert (far.verdict, far.flagged) == ("no sign", False)
    put(
        run / "samples_0.pt",
        {k: v[:4] if v.shape[0] == N else v[:, :4] if v.ndim == 2 else v for k, v in start.items()},
    )
    assert any("the cosine to the initial weights is unknown" in note for note in load(run).notes)


@pytest.mark.parametrize(
    ("start", "final"),
    [("0/sae.pt", "50000/sae.pt"), ("step_0/sae.pt", "step_900/sae.pt"), ("checkpoints/ae_0.pt", "ae.pt"),
     ("ckpt-000.pt", "ckpt-900.pt")],
)  # fmt: skip
def test_where_a_step_0_may_lie(start: str, final: str, tmp_path: Path) -> None:
    put(tmp_path / start, sae(0))
    assert load(put(tmp_path / final, sae(0))).metadata["cosine_to_start"] == pytest.approx(1.0)


def test_the_number_of_a_layer_is_not_a_step(tmp_path: Path) -> None:
    for name in ("0/sae.pt", "5/sae.pt", "layer_0.pt", "layer_5.pt", "0.pt", "5.pt"):
        put(tmp_path / name, sae(0))
    for name in ("5/sae.pt", "layer_5.pt", "5.pt"):
        assert "cosine_to_start" not in load(tmp_path / name).metadata


@pytest.mark.parametrize(("a", "b", "verdict"), [(32, 64, "differs"), (32, 33, "same"), (32, None, "unknown")])
def test_another_sparsity_is_flagged(a: int, b: int | None, verdict: str, tmp_path: Path) -> None:
    left = load(with_config(tmp_path / "a", {"k": a}))
    right = load(with_config(tmp_path / "b", {} if b is None else {"k": b}, seed=1))
    found = confound_audit(left, right).finding("sparsity")
    assert (found.a, found.verdict, found.flagged) == (f"k {a}", verdict, verdict == "differs")
