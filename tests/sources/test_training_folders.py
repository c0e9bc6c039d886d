"""Tests of training folders: the dictionaries are offered, but not the state that resumes training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_wrapping import reads_as, saelens, tensor
from written import B_N, DEC, ENC, N

from sae_geometry.sources import LayoutError, inspect, load


def sparsify(folder: Path) -> None:
    folder.mkdir(parents=True)
    save_file({"encoder.weight": tensor(ENC), "encoder.bias": tensor(B_N), "W_dec": tensor(DEC)},
              folder / "sae.safetensors")  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps({"expansion_factor": 8, "k": 32}))


def test_a_saelens_checkpoint_with_its_trainer_s_state(tmp_path: Path) -> None:
    save_file(saelens(), tmp_path / "sae_weights.safetensors")
    save_file({"n_dataset_processed": torch.tensor(100)}, tmp_path / "activations_store_state.safetensors")
    save_file({"sparsity": torch.full((N,), -3.0)}, tmp_path / "sparsity.safetensors")
    torch.save({"optimizer": {"state": {0: {"exp_avg": tensor(DEC)}}}}, tmp_path / "trainer_state.pt")
    (tmp_path / "activation_scaler.json").write_text("{}")
    assert reads_as(load(tmp_path), DEC, ENC)


def test_a_sparsify_run(tmp_path: Path) -> None:
    for hook in ("layers.10", "layers.12"):
        sparsify(tmp_path / "run" / hook)
    for name in ("state.pt", "rank_0_state.pt", "optimizer_0.pt", "lr_scheduler_0.pt"):
        torch.save({"global_step": 5, "fired": {"layers.10": torch.zeros(N)}}, tmp_path / "run" / name)
    with pytest.raises(LayoutError, match=r"2 weights files; give one of layers.10/sae.safetensors, layers.12/sae"):
        load(tmp_path / "run")
    d = load(tmp_path / "run" / "layers.10")
    assert reads_as(d, DEC, ENC)
    assert d.hook_point == "layers.10"


@pytest.mark.parametrize("name", ["seedA", "run.2", "sae-pythia-1.4b", "v1.2.3"])
def test_a_folder_s_name_is_a_hook_point_only_where_it_reads_as_one(name: str, tmp_path: Path) -> None:
    sparsify(tmp_path / name)
    assert load(tmp_path / name).hook_point is None


@pytest.mark.parametrize("name", ["layers.3.mlp", "h.5", "gpt_neox.layers.7"])
def test_folders_named_after_their_hook(name: str, tmp_path: Path) -> None:
    sparsify(tmp_path / name)
    assert load(tmp_path / name).hook_point == name


def test_state_dicts_keep_their_names(tmp_path: Path) -> None:
    """`model_state.pt` and `state_dict.pt` contain weights."""
    for name in ("model_state.pt", "state_dict.pt", "sae_state_dict.pt"):
        folder = tmp_path / name.removesuffix(".pt")
        folder.mkdir()
        torch.save(saelens(), folder / name)
        assert reads_as(load(folder), DEC, ENC)


def test_frequencies_that_are_not_numbers(tmp_path: Path) -> None:
    save_file(saelens(), tmp_path / "sae_weights.safetensors")
    save_file({"sparsity": torch.full((N,), torch.nan)}, tmp_path / "sparsity.safetensors")
    every = load(tmp_path, "all")
    assert reads_as(every, DEC, ENC)
    assert every.alive.n_dead is None
    assert inspect(tmp_path).dictionaries[0].norms is not None
    assert any("log-frequencies are NaN" in note for note in load(tmp_path).notes)
    save_file({"sparsity": torch.full((N,), -10.0)}, tmp_path / "sparsity.safetensors")
    with pytest.raises(ValueError, match=r"all 12 latents .* are dead .*--latents all"):
        load(tmp_path)


def test_a_folder_of_lightning_s_logs(tmp_path: Path) -> None:
    checkpoint = {"state_dict": {f"autoencoder.{k}": v for k, v in saelens().items()}, "optimizer_states": [{}]}
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, tmp_path / "checkpoints" / "epoch=0-step=10.ckpt")
    (tmp_path / "hparams.yaml").write_text("hook_name: blocks.5.hook_mlp_out\nmodel_name: gpt2\n")
    d = load(tmp_path)
    assert reads_as(d, DEC, ENC)
    assert (d.hook_point, d.model) == ("blocks.5.hook_mlp_out", "gpt2")
