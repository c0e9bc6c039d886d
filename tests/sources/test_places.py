"""Tests that several names of one place or model are recognized as one, and that different places stay different."""

from __future__ import annotations

from itertools import combinations

import pytest

from sae_geometry.sources.layouts.places import canonical_model, canonical_place, names_a_place

PLACES = [
    {
        "blocks.5.hook_resid_post", "blocks.6.hook_resid_pre", "model.layers.5", "model.layers.5.output",
        "model.layers.6.input", "transformer.h.5", "h.5", "gpt_neox.layers.5", "layers.5", "model.layers[5]",
        "model.model.layers.5", "model.language_model.layers.5.output", "language_model.model.layers.5",
        "model.decoder.layers.5", "backbone.layers.5", "blocks.5", "blocks.5.hook_out", "blocks.6.hook_in",
        "resid_post_layer_5", "layer_5_resid_post", "bert.encoder.layer.5", "transformer.h.6.ln_1.input",
        "model.layers.6.input_layernorm.input", "Model.Layers.5", "model.layers[5].output[0]",
        "transformer.h[5].output[0][0]", "model.layers[6].inputs[0][0]", "resid_out_layer5", "resid_post_5",
        "l5_resid_post",
    },
    {
        "blocks.5.hook_mlp_out", "model.layers.5.mlp", "gpt_neox.layers.5.mlp.output", "transformer.h.5.mlp",
        "transformer.h.5.mlp.c_proj", "model.layers.5.mlp.down_proj.output", "layers.5.mlp", "mlp_out_layer_5",
        "model.layers.5.post_feedforward_layernorm.output", "gpt_neox.layers.5.mlp.dense_4h_to_h",
    },
    {"blocks.5.hook_attn_out", "model.layers.5.self_attn", "transformer.h.5.attn", "gpt_neox.layers.5.attention",
     "model.layers.5.self_attn.o_proj", "attn_out_layer_5", "attention_out_layer_5",
     "model.layers[5].self_attn.output[0]"},
    {"blocks.5.attn.hook_z", "model.layers.5.self_attn.o_proj.input", "transformer.h.5.attn.c_proj.input"},
    {"blocks.5.hook_resid_mid", "model.layers.5.post_attention_layernorm.input", "transformer.h.5.ln_2.input"},
    {"blocks.5.mlp.hook_post", "model.layers.5.mlp.down_proj.input", "transformer.h.5.mlp.c_proj.input"},
    {"blocks.5.ln2.hook_normalized", "transformer.h.5.ln_2"},
    {"blocks.5.attn.hook_q"},
    {"blocks.5.attn.hook_q (head 3)", "model.layers.5.self_attn.q_proj (head 3)", "blocks.5.attn.hook_q.3",
     "blocks.5.attn.hook_q[3]", "blocks.5.attn.hook_q.head.3", "blocks.5.attn.hook_q_head_3"},
    {"blocks.5.attn.hook_q (head 5)"},
    {"blocks.5.attn.hook_k", "model.layers.5.self_attn.k_proj"},
    {"blocks.0.hook_resid_pre", "model.layers.0.input"},
    {"hook_embed", "model.embed_tokens", "transformer.wte", "gpt_neox.embed_in"},
    {"blocks.15.hook_resid_post", "model.layers.15"},
    {"encoder.block.5", "encoder.blocks.5.hook_resid_post"},
    {"vision_model.encoder.layers.5"},
]  # fmt: skip
MODELS = [
    {"gpt2", "gpt2-small", "openai-community/gpt2", "GPT-2 small", "/models/gpt2/", "models--gpt2/snapshots/0"},
    {"gpt2-medium", "openai-community/gpt2-medium"},
    {
        "Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B",
        "Llama3_1-8B-Base",
        "llama_3_1_8b",
        "llama3.1-8b",
        "models--meta-llama--Llama-3.1-8B",
    },
    {"Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3.1-8b-it", "llama_3_1_8b_instruct"},
    {"Meta-Llama-3-8B", "meta-llama/Llama-3-8B"},
    {"meta-llama/Llama-2-7b-hf", "Llama-2-7b"},
    {"google/gemma-2-2b", "gemma-2-2b", "gemma2-2b"},
    {"gemma-2-2b-it", "google/gemma-2-2b-it"},
    {"gemma-2b"},
    {"google/gemma-3-1b-pt", "gemma-3-1b"},
    {"google/gemma-3-1b-it"},
    {"Qwen/Qwen3-8B", "qwen-3-8b"},
    {"Qwen/Qwen3-8B-Base"},
    {"EleutherAI/pythia-160m", "pythia-160m"},
    {"EleutherAI/pythia-160m-deduped"},
    {"opt-1.3b"},
    {"opt-13b"},
    {"NeelNanda/GELU_1L512W_C4_Code", "gelu-1l"},
    {"mistralai/Mistral-7B-v0.1", "mistral-7b"},
    {"mistralai/Mistral-7B-v0.3"},
    {"mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-instruct"},
    {"Qwen/Qwen2.5-0.5B", "qwen2.5_0.5b", "qwen2_5-0_5b"},
    {"Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-it"},
    {"stanford-crfm/battlestar-gpt2-small-x49", "stanford-gpt2-small-b"},
    {"stanford-crfm/celebrimbor-gpt2-medium-x81", "stanford-gpt2-medium-c"},
    {"roneneldan/TinyStories-33M", "tiny-stories-33M"},
    {"EleutherAI/gpt-neox-20b", "gpt-neox"},
    {"EleutherAI/pythia-1.4b", "pythia-1.4b-hf"},
    {"EleutherAI/pythia-14m"},
    {r"C:\models\opt-350m", "facebook/opt-350m"},
]


@pytest.mark.parametrize(("groups", "name"), [(PLACES, canonical_place), (MODELS, canonical_model)])
def test_every_name_of_one_thing_is_one_and_of_two_are_two(groups, name) -> None:
    canonical = [{name(spelled) for spelled in group} for group in groups]
    assert [len(names) for names in canonical] == [1] * len(groups)
    assert not any(a & b for a, b in combinations(canonical, 2))
    assert all(name(*names) in names for names in canonical), "a canonical name should be unchanged"


def test_where_sublayers_are_normalized_their_own_output_is_not_what_is_added() -> None:
    for model in ("google/gemma-2-2b", "gemma-3-4b-it"):
        added = canonical_place("blocks.5.hook_mlp_out", model)
        assert canonical_place("model.layers.5.post_feedforward_layernorm", model) == added
        assert canonical_place("model.layers.5.mlp", model) != added
        attention = canonical_place("blocks.5.hook_attn_out", model)
        assert canonical_place("model.layers.5.post_attention_layernorm", model) == attention
        assert canonical_place("model.layers.5.self_attn", model) != attention
    assert canonical_place("model.layers.5.mlp", "gemma-2b") == "blocks.5.hook_mlp_out"


def test_a_folder_is_a_hook_point_only_where_it_reads_as_one() -> None:
    for name in ("layers.10", "h.3", "layers.3.mlp", "blocks.8.hook_resid_pre", "resid_post_layer_8", "embed_tokens",
                 "vision_tower.encoder.layers.3", "model.visual.blocks.7"):  # fmt: skip
        assert names_a_place(name), name
    for name in ("seedA", "seed0", "h", "mlp", "layer_12", "layers", "blocks", "run.5", "v1.2", "layers.3.seedA",
                 "hook", "embedding", "checkpoint-1000", "", "seedA.layers.3", "run1.model.h.5",
                 "output_3", "input_0", "mlp_0", "l5", "l5_x", "post_3", "resid_3"):  # fmt: skip
        assert not names_a_place(name), name


def test_what_is_not_understood_stays_itself() -> None:
    assert canonical_place("Some.Thing.else") == "some.thing.else"
    assert canonical_place("blocks.6.x") == "blocks.6.x"
    assert canonical_model(None) is None
