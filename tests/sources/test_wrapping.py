"""Tests of dictionaries inside mappings, lists and stacks, read from files and from memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from written import B_D, B_N, DEC, ENC, D, L, N, random, unit

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources import LayoutError, as_dictionary, inspect, load

STACK, STACK_ENC = random(L, N, D) + 1, random(L, N, D)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def saelens(decoder: np.ndarray = DEC, encoder: np.ndarray = ENC) -> dict[str, torch.Tensor]:
    return {"W_dec": tensor(decoder), "W_enc": tensor(encoder.T), "b_enc": tensor(B_N), "b_dec": tensor(B_D)}


def wrapped(table: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {".".join((*prefixes, key)): value for key, value in table.items()}


def reads_as(d: Dictionary, decoder: np.ndarray, encoder: np.ndarray | None) -> bool:
    same = d.directions.shape == decoder.shape and np.abs(d.directions.numpy() - unit(decoder)).max() <= 1e-6
    if encoder is None or d.encoder_directions is None:
        return bool(same) and encoder is None and d.encoder_directions is None
    return bool(same) and np.abs(d.encoder_directions.numpy() - unit(encoder)).max() <= 1e-6


def saved(folder: Path, tree: Any) -> Path:
    torch.save(tree, folder / "x.pt")
    return folder / "x.pt"


WRAPPERS = ("_orig_mod", "module", "model", "sae", "autoencoder")


@pytest.mark.parametrize("prefixes", [*itertools.permutations(WRAPPERS, 2), WRAPPERS, ("my", "own")], ids=".".join)
def test_prefixes_in_any_order(prefixes: tuple[str, ...], tmp_path: Path) -> None:
    inside = {"state_dict": wrapped(saelens(), *prefixes), "step": 7}
    for tree in (wrapped(saelens(), *prefixes), inside):
        assert reads_as(load(saved(tmp_path, tree)), DEC, ENC)
        assert reads_as(as_dictionary(tree), DEC, ENC)


def test_wrappers_inside_a_name(tmp_path: Path) -> None:
    tree = {"encoder._orig_mod.weight": tensor(ENC), "decoder.module.weight": tensor(DEC.T)}
    assert reads_as(load(saved(tmp_path, tree)), DEC, ENC)
    assert "decoder.module.weight" in inspect(tmp_path / "x.pt").dictionaries[0].decoder


def test_a_state_dict_beside_an_optimizer_s_state(tmp_path: Path) -> None:
    moments = {"state": {0: {"exp_avg": tensor(DEC), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    for tree in (
        {"model": saelens(), "optimizer": moments, "epoch": 3},
        {
            "model": saelens(),
            "optimizer": {"exp_avg": saelens(STACK[0], STACK_ENC[0])},
            "exp_avg": saelens(),
            "epoch": 3,
        },
        {
            "state_dict": {**wrapped(saelens(), "sae"), "lm.embed.weight": torch.zeros(50, D)},
            "optimizer_states": [moments],
            "loops": {"fit_loop": {"state_dict": {}}},
            "hyper_parameters": {"hook_name": "blocks.3.hook_resid_pre"},
            "epoch": 3,
        },
    ):
        d = load(saved(tmp_path, tree))
        assert reads_as(d, DEC, ENC)
        assert d.metadata["epoch"] == 3
        assert not any("lr" in key for key in d.metadata)
    assert d.hook_point == "blocks.3.hook_resid_pre", "the checkpoint's own configuration should be read"


@pytest.mark.parametrize(
    ("tree", "choices"),
    [
        ([saelens(), saelens(STACK[0], STACK_ENC[0])], ("0", "1")),
        ({"layer_0": saelens(), "layer_1": saelens(STACK[0], STACK_ENC[0])}, ("layer_0", "layer_1")),
        ({0: saelens(), 1: saelens(STACK[0], STACK_ENC[0])}, ("0", "1")),
        ([(saelens(), {"l1": 0.1}), (saelens(STACK[0], STACK_ENC[0]), {"l1": 0.2})], ("0.0", "1.0")),
        ({"state_dict": {"seedA": saelens(), "seedB": saelens(STACK[0], STACK_ENC[0])}}, ("seedA", "seedB")),
    ],
)
def test_lists_and_tables_of_state_dicts(tree: Any, choices: tuple[str, str], tmp_path: Path) -> None:
    path = saved(tmp_path, tree)
    assert tuple(d.choice for d in inspect(path).dictionaries) == choices
    with pytest.raises(
        LayoutError, match=f"contains 2 dictionaries; choose one by adding ::{choices[0]}, ::{choices[1]}"
    ):
        load(path)
    with pytest.raises(LayoutError, match=r"holds 2 dictionaries \(.*\): pass only one of them"):
        as_dictionary(tree)
    assert reads_as(load(f"{path}::{choices[0]}"), DEC, ENC)
    other = load(f"{path}::{choices[1]}")
    assert reads_as(other, STACK[0], STACK_ENC[0])
    assert other.hook_point is None, "a mapping's key is not a hook point"
    if choices[0] in ("0", "layer_0"):
        assert reads_as(load(f"{path}::layer=1"), STACK[0], STACK_ENC[0])


def test_tables_named_after_places(tmp_path: Path) -> None:
    path = saved(tmp_path, {"blocks.8.hook_resid_pre": saelens(), "blocks.10.hook_resid_pre": saelens(STACK[0])})
    assert load(f"{path}::blocks.10.hook_resid_pre").hook_point == "blocks.10.hook_resid_pre"
    assert reads_as(load(f"{path}::blocks.8.hook_resid_pre"), DEC, ENC)


def leading(table: dict[str, torch.Tensor], n: int = 1) -> dict[str, torch.Tensor]:
    return {k: v.reshape((1,) * n + tuple(v.shape)) for k, v in table.items()}


LINEAR = {"decoder.weight": tensor(DEC.T), "encoder.weight": tensor(ENC), "encoder.bias": tensor(B_N)}
QWEN = {"W_dec": tensor(DEC.T), "W_enc": tensor(ENC), "b_enc": tensor(B_N), "b_dec": tensor(B_D)}
UNSAID = {"decoder.weight": tensor(DEC.T), "encoder.weight": tensor(ENC)}


@pytest.mark.parametrize("table", [saelens(), LINEAR, QWEN, UNSAID])
@pytest.mark.parametrize("n_leading", [1, 2])
def test_leading_axes_of_one_are_dropped(table: dict[str, torch.Tensor], n_leading: int, tmp_path: Path) -> None:
    tree = leading(table, n_leading)
    for d in (load(saved(tmp_path, tree)), as_dictionary(tree)):
        assert reads_as(d, DEC, ENC)
        assert d.encoder_bias is None or np.array_equal(d.encoder_bias.numpy(), B_N)
    bare = as_dictionary(DEC[None])
    np.save(tmp_path / "x.npy", DEC[None])
    assert reads_as(bare, DEC, None)
    assert load(tmp_path / "x.npy").fingerprint == bare.fingerprint


def test_biases_with_an_axis_of_one_tell_the_orientation() -> None:
    assert reads_as(as_dictionary({"W_dec": tensor(DEC.T), "b_enc": torch.zeros(1, N)}), DEC, None)


STACKS = {
    "saelens": {"W_dec": STACK, "W_enc": STACK_ENC.transpose(0, 2, 1), "b_enc": random(L, N), "b_dec": random(L, D)},
    "qwen_scope": {"W_dec": STACK.transpose(0, 2, 1), "W_enc": STACK_ENC, "b_enc": random(L, N)},
    "linear": {"decoder.weight": STACK.transpose(0, 2, 1), "encoder.weight": STACK_ENC, "encoder.bias": random(L, N)},
}


@pytest.mark.parametrize("layout", STACKS)
def test_a_stack_is_a_choice_of_layers(layout: str, tmp_path: Path) -> None:
    tree = {k: tensor(v) for k, v in STACKS[layout].items()}
    path = saved(tmp_path, tree)
    with pytest.raises(LayoutError, match="3 dictionaries; choose one by adding ::layer=0, ::layer=1, ::layer=2"):
        load(path)
    with pytest.raises(LayoutError, match="holds no ::layer=3"):
        load(f"{path}::layer=3")
    for i in range(L):
        d = load(f"{path}::layer={i}")
        assert reads_as(d, STACK[i], STACK_ENC[i])
        assert d.layout == layout
        assert d.encoder_bias is not None
        name = "b_enc" if layout != "linear" else "encoder.bias"
        assert np.array_equal(d.encoder_bias.numpy(), STACKS[layout][name][i])


def test_a_stack_of_as_many_dictionaries_as_latents_is_not_a_crosscoder(tmp_path: Path) -> None:
    stack = random(N, N, D)
    path = saved(tmp_path, {"W_dec": tensor(stack), "W_enc": torch.zeros(N, D, N) + 1, "b_enc": torch.zeros(N, N)})
    assert reads_as(load(f"{path}::layer=1"), stack[1], np.ones((N, D), np.float32))


def test_a_stack_of_bare_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", STACK)
    assert reads_as(load(f"{tmp_path / 'x.npy'}::layer=2"), STACK[2], None)
    with pytest.raises(LayoutError, match=r"the array holds 3 dictionaries \(layer=0, layer=1, layer=2\)"):
        as_dictionary(STACK)


def test_a_transcoder_with_an_axis_for_layers_read_and_one_for_layers_written(tmp_path: Path) -> None:
    decoders = random(L, L, N, D)
    tree = {"model.W_enc": tensor(STACK_ENC.transpose(0, 2, 1)), "model.W_dec": tensor(decoders),
            "model.mask": torch.triu(torch.ones(L, L)), "model.nonlinearity.theta": torch.zeros(1, L, N)}  # fmt: skip
    path = saved(tmp_path, {"state_dict": tree, "global_step": 5})
    d = load(f"{path}::source=1")
    assert (d.layout, d.hook_point) == ("crosslayer_transcoder", None)
    assert reads_as(d, np.concatenate([decoders[1, 1], decoders[1, 2]], axis=1), STACK_ENC[1])
    assert reads_as(load(f"{path}::source=0::layer=2"), decoders[0, 2], STACK_ENC[0])
    with pytest.raises(LayoutError, match="writes to layers 1, 2, not to 0"):
        load(f"{path}::source=1::layer=0")
    tree["model.mask"] = torch.eye(L)
    assert reads_as(load(f"{saved(tmp_path, tree)}::source=1"), decoders[1, 1], STACK_ENC[1])


def test_a_transcoder_with_a_decoder_for_each_pair_of_layers(tmp_path: Path) -> None:
    pairs = {(s, t): random(N, D) + s + 3 * t for s in range(L) for t in range(s, L)}
    tree = {f"decoder_module.decoders.{s}->{t}.weight": tensor(w.T) for (s, t), w in pairs.items()}
    tree |= {f"encoder_module.encoders.{i}.weight": tensor(STACK_ENC[i]) for i in range(L)}
    path = saved(tmp_path, {"config": {"num_features": N}, "state_dict": tree})
    assert reads_as(load(f"{path}::source=1"), np.concatenate([pairs[1, 1], pairs[1, 2]], axis=1), STACK_ENC[1])
    assert reads_as(load(f"{path}::source=0::layer=2"), pairs[0, 2], STACK_ENC[0])
    tied = {f"decoder_module.decoders.{i}.weight": tensor(STACK[i].T) for i in range(L)}
    d = load(f"{saved(tmp_path, tied)}::source=2")
    assert reads_as(d, STACK[2], None)
    assert any("tied decoders" in note for note in d.notes)


def test_transforms_of_higher_rank_are_refused_with_the_reason(tmp_path: Path) -> None:
    tree = {"W_E": tensor(ENC.T), "b_E": tensor(B_N),
            "U_matrices.1": torch.zeros(4, D, 1), "V_matrices.1": torch.zeros(4, 1, D),
            "U_matrices.2": torch.zeros(8, D, 2), "V_matrices.2": torch.zeros(8, 2, D)}  # fmt: skip
    with pytest.raises(
        LayoutError, match=r"mixture of linear transforms: each latent of rank above 1 .* no single direction"
    ):
        load(saved(tmp_path, tree))


def test_objects_are_read_as_their_files_are() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = torch.nn.Linear(D, N), torch.nn.Linear(N, D, bias=False)
            self.bias = torch.nn.Parameter(torch.zeros(D))

    net = Net()
    d = as_dictionary(net)
    assert d.layout == "dictionary_learning"
    assert reads_as(d, net.decoder.weight.detach().numpy().T, net.encoder.weight.detach().numpy())
    turned = SimpleNamespace(**QWEN, cfg={"hook_name": "h"})
    assert reads_as(as_dictionary(turned), DEC, ENC)
    assert as_dictionary(turned).hook_point == "h"


def test_a_mapping_is_read_by_its_biases_and_says_how() -> None:
    for table in (saelens(), QWEN, {"W_dec": tensor(DEC.T), "b_dec": tensor(B_D)}, {"W_dec": DEC.tolist()}):
        assert reads_as(as_dictionary(table), DEC, ENC if "W_enc" in table else None)
    assert as_dictionary(QWEN).notes == ("read as Qwen-Scope: W_dec [width, n_latents], W_enc [n_latents, width]",)
    assert "axis 0 was taken as latents" in as_dictionary({"W_dec": DEC}).notes[0]
    assert as_dictionary({"W_dec": DEC}, latent_axis=1).n_latents == D
    assert as_dictionary(DEC, latent_axis=1).n_latents == D
    for wrong in (
        {"b_enc": torch.zeros(N + 1)}, {"W_enc": torch.zeros(N + 1, N + 2)}, {"b_gate": torch.zeros(D + 1)},
        {"W_enc": torch.zeros(N + 1, D)}, {"b_dec": torch.zeros(D + 1)},
        {"b_enc": torch.zeros(N), "b_dec": torch.zeros(N)}, {"b_enc": torch.zeros(N), "threshold": torch.zeros(D)},
    ):  # fmt: skip
        with pytest.raises(LayoutError, match="no known layout fits the mapping, which holds W_dec"):
            as_dictionary({"W_dec": DEC, **wrong})


@pytest.mark.parametrize("value", [np.ones((3, 4), dtype=bool), np.ones((3, 4), dtype=complex), np.ones(4)])
def test_arrays_that_are_not_a_decoder(value: np.ndarray) -> None:
    with pytest.raises(LayoutError, match="the array holds no decoder"):
        as_dictionary(value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"encoder.weight": ENC, "encoder.bias": B_N, "b_dec": B_D},
        {"net.encoder.weight": ENC, "b_dec": B_D, "skip": random(D, D)},
        {"W_enc": ENC.T, "mask": random(N, N), "mixing": random(N, N)},
        {"one": DEC, "two": ENC},
        {"decoder.weight_v": DEC.T, "decoder.weight_g": random(D, 1)},
        {"decoder.weight_orig": DEC.T, "decoder.weight_mask": DEC.T},
        {"decoder.lora_A": random(2, N), "decoder.lora_B": random(D, 2)},
        {"feature_activations": DEC, "dict_usage": ENC, "decorrelation": random(D, D)},
        {"latents": DEC, "to_features": ENC, "direction_cov": random(D, D)},
        {"weight": DEC},
        {"lin.weight": ENC, "lin.bias": B_N},
        {"direction_weights": random(N, N), "features_read": ENC, "feature_detectors": ENC},
        {"decoder.up.weight": random(D, 2), "decoder.down.weight": random(2, N)},
        {"decoder.m": DEC.T, "decoder.v": DEC.T, "dictionary_pinv": ENC.T, "dict_avg": DEC},
        {"target_decoder": DEC, "online_decoder": DEC + 1},
    ],
)
def test_no_encoder_or_mask_is_proposed_for_a_decoder(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(LayoutError) as caught:
        load(saved(tmp_path, {k: tensor(v) for k, v in tensors.items()}))
    text = str(caught.value)
    assert "from_decoder(decoder, latent_axis=…)" in text
    assert not any(repr(key) in text for key in tensors)


def test_the_decoder_proposed_is_named_as_in_the_file(tmp_path: Path) -> None:
    tree = {"_orig_mod.encoder.weights": tensor(ENC), "_orig_mod.dec_vectors": tensor(DEC.T)}
    with pytest.raises(LayoutError, match=r"from_decoder\(tensors\['_orig_mod.dec_vectors'\], latent_axis=1\)"):
        load(saved(tmp_path, tree))
