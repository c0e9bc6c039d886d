from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae_geometry.labels.unembedding import Unembedding, read_unembedding
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.language_model import local_model, model_weights

V, D = 7, 4


def weight(seed: int = 0, shape: tuple[int, ...] = (V, D)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def save(folder: Path, tensors: dict[str, torch.Tensor], config: dict, shards: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    where = {}
    for i, key in enumerate(tensors):
        where[key] = f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors"
    for name in set(where.values()):
        save_file({k: t for k, t in tensors.items() if where[k] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_rows_are_gain_times_weight_centered_over_the_vocabulary():
    w, gain = weight(), weight(1, (D,))
    u = Unembedding.from_weights(w, list("abcdefg"), gain=gain)
    dense = (w.double() * gain.double()) - (w.double() * gain.double()).mean(0)
    torch.testing.assert_close(u.rows.double(), dense, atol=1e-6, rtol=1e-6)
    assert u.tokens == tuple("abcdefg")
    assert "centered over the vocabulary" in u.how


def test_a_layer_norm_removes_the_mean_over_the_width():
    """Adding a constant to a direction changes no logit under LayerNorm."""
    u = Unembedding.from_weights(weight(), layer_norm=True)
    torch.testing.assert_close(u.rows @ torch.ones(D), torch.zeros(V), atol=1e-6, rtol=0)
    assert "LayerNorm" in u.how


def test_rows_without_a_token_are_padding():
    u = Unembedding.from_weights(weight(), ["a", "", "c"])
    assert u.tokens == ("a", "c")
    assert "5 of 7 rows have no token" in u.how


@pytest.mark.parametrize(
    ("w", "gain", "says"),
    [
        (weight(0, (3,)), None, "n_tokens"),
        (weight(), weight(1, (3,)), r"shape \(4,\)"),
        (weight() * torch.inf, None, "finite"),
    ],
)
def test_what_does_not_fit_is_refused(w, gain, says):
    with pytest.raises(ValueError, match=says):
        Unembedding.from_weights(w, gain=gain)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    ("keys", "config", "chosen", "layer_norm"),
    [
        (("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"), {}, "lm_head.weight", False),
        (("model.embed_tokens.weight", "model.norm.weight"), {}, "model.embed_tokens.weight (tied)", False),
        (("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"), {"model_type": "gpt2"}, "wte.weight (tied)", True),
        (("embed_out.weight", "gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm.weight"), {"layer_norm_eps": 1e-5},
         "embed_out.weight", True),
        (("model.language_model.embed_tokens.weight", "model.language_model.norm.weight", "model.vision.norm.weight"),
         {}, "model.language_model.embed_tokens.weight (tied)", False),
    ],
)  # fmt: skip
def test_unembedding_and_norm_are_found_by_name(tmp_path, keys, config, chosen, layer_norm, shards):
    inner = {"model.layers.0.post_attention_layernorm.weight": weight(9, (D,)), "h.3.ln_f.weight": weight(9, (D,))}
    tensors = {k: weight(i, (D,) if "norm" in k or "ln_f" in k else (V, D)) for i, k in enumerate(keys)} | inner
    found = model_weights(local_model(save(tmp_path, tensors, config, shards)))
    assert (found.weight_name, found.layer_norm) == (chosen, layer_norm)
    torch.testing.assert_close(found.weight, tensors[chosen.removesuffix(" (tied)")])
    assert found.gain is not None
    torch.testing.assert_close(found.gain, tensors[found.gain_name])


def test_gemma_stores_its_gain_less_one(tmp_path):
    tensors = {"model.embed_tokens.weight": weight(), "model.norm.weight": torch.zeros(D)}
    found = model_weights(local_model(save(tmp_path, tensors, {"text_config": {"model_type": "gemma3_text"}})))
    assert found.gain is not None
    assert found.gain.tolist() == [1.0] * D
    assert "plus one" in found.gain_name


def test_weight_gain_centering_and_biases_are_stated(tmp_path):
    tensors = {"lm_head.weight": weight(), "model.norm.weight": weight(1, (D,))}
    save(tmp_path / "plain", tensors, {})
    used = "lm_head.weight times model.norm.weight, centered over the vocabulary"
    assert read_unembedding(tmp_path / "plain").how == f"{used}; no bias"
    biases = {"lm_head.bias": weight(2, (V,)), "model.norm.bias": weight(3, (D,))}
    save(tmp_path / "biased", tensors | biases, {})
    left_out = "left out as constants per token: model.norm.bias, lm_head.bias"
    assert read_unembedding(tmp_path / "biased").how == f"{used} and over the width (LayerNorm); {left_out}"
    assert Unembedding.from_weights(weight()).how.endswith("centered over the vocabulary; no gain; no bias")


def test_ambiguity_and_absence_are_answered(tmp_path):
    both = {"a.lm_head.weight": weight(), "b.lm_head.weight": weight()}
    with pytest.raises(SourceError, match="several tensors that could be the unembedding"):
        model_weights(local_model(save(tmp_path / "both", both, {})))
    with pytest.raises(SourceError, match="has no unembedding: expected"):
        model_weights(local_model(save(tmp_path / "none", {"x": weight()}, {})))
    untied = {"model.embed_tokens.weight": weight()}
    with pytest.raises(SourceError, match="is not tied"):
        model_weights(local_model(save(tmp_path / "untied", untied, {"tie_word_embeddings": False})))
    with pytest.raises(SourceError, match=r"no model\.safetensors"):
        local_model(tmp_path)


def test_an_index_that_leads_elsewhere_is_refused(tmp_path):
    save(tmp_path, {"lm_head.weight": weight()}, {})
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "../x.safetensors"}}')
    with pytest.raises(SourceError, match=r"lists missing shards: ../x\.safetensors"):
        local_model(tmp_path)
