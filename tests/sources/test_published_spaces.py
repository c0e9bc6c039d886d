"""Tests of model and hook point in the files of Gemma Scope and sparsify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from space_cases import D, N, put, refused, sae

import sae_geometry as sg
from sae_geometry.sources import load


def gemma_2(folder: Path, seed: int, **config: Any) -> Path:
    w = sae(seed)
    tensors = {
        "w_dec": w["W_dec"],
        "w_enc": w["W_enc"],
        "b_enc": w["b_enc"],
        "b_dec": w["b_dec"],
        "threshold": torch.ones(N),
    }
    if config:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config | {"model_name": "google/gemma-3-1b-pt", "l0": 20}))
    return put(folder / "params.safetensors", tensors)


def test_gemma_scope_2_says_its_hooks_in_its_configuration(tmp_path: Path) -> None:
    def scope(kind: str, layer: int, into: str, out: str, seed: int) -> Path:
        hooks = {"hf_hook_point_in": f"model.layers.{layer}.{into}", "hf_hook_point_out": f"model.layers.{layer}.{out}"}
        return gemma_2(tmp_path / f"{kind}{layer}-{seed}", seed, **hooks, type=kind, architecture="jump_relu")

    twelve, seventeen = (scope("sae", layer, "output", "output", layer) for layer in (12, 17))
    norms = ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output")
    transcoder, mlp = scope("transcoder", 12, *norms, 1), scope("sae", 12, norms[1], norms[1], 2)
    assert load(twelve).notes == ()
    assert load(twelve).metadata["l0"] == 20
    refused(twelve, seventeen)
    assert "transcoder" in refused(twelve, transcoder)
    assert any("is a transcoder" in c for c in sg.compare(transcoder, mlp).caveats)


@pytest.mark.parametrize(
    ("folder", "hook", "out"),
    [
        ("resid_post_all/layer_12_width_16k_l0_small", "blocks.12.hook_resid_post", None),
        ("mlp_out/layer_12_width_16k_l0_big", "blocks.12.hook_mlp_out", None),
        ("attn_out_all/layer_12_width_16k_l0_small", "blocks.12.attn.hook_z", None),
        ("transcoder_all/layer_12_width_16k_l0_big_affine", "blocks.12.mlp.hook_in", "blocks.12.hook_mlp_out"),
    ],
)
def test_gemma_scope_2_without_its_configuration_says_them_in_its_path(
    folder: str, hook: str, out: str | None, tmp_path: Path
) -> None:
    d = load(gemma_2(tmp_path / "models--google--gemma-scope-2-1b-it" / "snapshots" / "0" / folder, 0))
    assert (d.model, d.hook_point) == ("google/gemma-3-1b-it", out or hook)
    assert (d.metadata.get("hook_point_in"), "transcoder" in d.metadata) == ((hook, True) if out else (None, False))


def gemma_1(root: Path, repository: str, path: str, seed: int) -> Path:
    tensors = sae(seed) | {"threshold": torch.ones(N)}
    return put(root / repository / path / "params.npz", tensors)


@pytest.mark.parametrize("root", ["models--google--", "google/"])
def test_gemma_scope_1_says_model_place_and_layer_in_its_path(root: str, tmp_path: Path) -> None:
    def at(repository: str, path: str, seed: int) -> Path:
        return gemma_1(tmp_path, f"{root}gemma-scope-{repository}/snapshots/0", path, seed)

    transcoders = [at("2b-pt-transcoders", f"layer_{i}/width_16k/average_l0_76", i) for i in (0, 5)]
    residual = at("2b-pt-res", "layer_0/width_16k/average_l0_105", 1)
    assert (load(residual).model, load(residual).hook_point) == ("google/gemma-2-2b", "blocks.0.hook_resid_post")
    assert load(residual).metadata["l0"] == 105
    assert load(at("2b-pt-res", "embedding/width_4k/average_l0_6", 1)).hook_point == "hook_embed"
    assert load(at("9b-pt-att", "layer_3/width_16k/canonical", 1)).hook_point == "blocks.3.attn.hook_z"
    assert load(at("27b-pt-mlp", "layer_3/width_131k/average_l0_9", 1)).hook_point == "blocks.3.hook_mlp_out"
    assert "transcoder" in refused(*transcoders)
    assert "transcoder" in refused(transcoders[0], residual)
    chat = [at(f"9b-{kind}-res", "layer_9/width_16k/average_l0_88", i) for i, kind in enumerate(("pt", "it"))]
    assert "gemma-2-9b-it" in refused(*chat, "model")


def sparsify(folder: Path, seed: int, **config: Any) -> Path:
    w = sae(seed)["W_dec"]
    put(folder / "sae.safetensors", {"encoder.weight": w.clone(), "encoder.bias": torch.zeros(N), "W_dec": w,
                                     "b_dec": torch.zeros(D)})  # fmt: skip
    (folder / "cfg.json").write_text(
        json.dumps({"expansion_factor": 4, "k": 8, "d_in": D, "transcode": False} | config)
    )
    return folder


def test_a_folder_of_sparsify_is_a_hook_point_only_where_it_reads_as_one(tmp_path: Path) -> None:
    a, b = sparsify(tmp_path / "seedA", 0), sparsify(tmp_path / "seedB", 1)
    assert load(a).hook_point is None
    assert sg.compare(a, b).a_to_b.mmcs < 1
    ten, twelve = (sparsify(tmp_path / "run" / f"layers.{i}", i) for i in (10, 12))
    refused(ten, twelve)
    t = sparsify(tmp_path / "other" / "layers.3.mlp", 3, transcode=True)
    assert (load(t).hook_point, load(t).metadata["hook_point_in"]) == ("layers.3.mlp", "layers.3.mlp.input")


def test_sparsify_names_its_model_above_its_hook_points(tmp_path: Path) -> None:
    for i, model in enumerate(("EleutherAI/pythia-160m", "gpt2")):
        sparsify(tmp_path / f"run{i}" / "layers.5", i)
        (tmp_path / f"run{i}" / "config.json").write_text(json.dumps({"model": model, "hookpoints": ["layers.5"]}))
    refused(tmp_path / "run0" / "layers.5", tmp_path / "run1" / "layers.5", "model")
