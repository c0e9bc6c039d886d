"""Tests that the guard recognizes model and hook point however a file states them, and infers nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from space_cases import SAELENS, D, N, put, refused, sae, with_config

import sae_geometry as sg
from sae_geometry.pairwise.same_space import place_key
from sae_geometry.sources import SourceError, inspect, load


@pytest.mark.parametrize(
    ("config", "hook"),
    [
        ({"hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_layer": 5}, "blocks.5.hook_resid_pre"),
        ({"hook_name": "blocks.{L}.attn.hook_z", "hook_layer": 5}, "blocks.5.attn.hook_z"),
        ({"hook_name": "transformer.h.{}.mlp", "layer": "5"}, "transformer.h.5.mlp"),
        ({"hook_name": "model.layers.%d", "layer_idx": 5}, "model.layers.5"),
        ({"metadata": {"hook_name": "blocks.{layer}.hook_resid_pre", "hook_layer": 5}}, "blocks.5.hook_resid_pre"),
        ({"hook_point": "resid_post", "hook_point_layer": [5]}, "blocks.5.hook_resid_post"),
        ({"site": "mlp_out", "layer": 5, "model_name": "m"}, "blocks.5.hook_mlp_out"),
        ({"act_name": "blocks.5.attn.hook_z", "layer": 5}, "blocks.5.attn.hook_z"),
        ({"trainer": {"layer": 5, "submodule_name": "resid_post"}}, "blocks.5.hook_resid_post"),
        ({"trainer": {"submodule_name": "attn_out_layer_5"}}, "blocks.5.hook_attn_out"),
        ({"hook_name": {"value": "blocks.5.hook_resid_pre", "desc": None}}, "blocks.5.hook_resid_pre"),
        ({"sae": {"value": {"hook_name": "blocks.5.hook_resid_pre"}, "desc": None}}, "blocks.5.hook_resid_pre"),
        ({"cfg": {"sae": {"hook_point_in": "blocks.5.hook_resid_pre"}}}, "blocks.5.hook_resid_pre"),
        ({"sae_cfg": json.dumps({"hook_name": "blocks.5.hook_resid_pre"})}, "blocks.5.hook_resid_pre"),
        ({"hookpoint": "layers.5.mlp"}, "layers.5.mlp"),
        ({"hook_points": ["blocks.5.hook_resid_pre"]}, "blocks.5.hook_resid_pre"),
        ({"hook_name": "blocks.{layer}.hook_resid_pre", "layer_id": 5}, "blocks.5.hook_resid_pre"),
        ({"trainer": {"submodule_name": "model.layers.5.mlp"}, "buffer": {"io": "in"}}, "model.layers.5.mlp.input"),
        ({"trainer": {"submodule_name": "model.layers.5.mlp"}, "buffer": {"io": "out"}}, "model.layers.5.mlp"),
        ({"trainer": {"submodule_name": "resid_post_layer_5"}, "buffer": {"io": "in"}}, "blocks.5.hook_resid_post"),
        ({"hook_name": "blocks.7.attn.hook_z", "head_num": "2"}, "blocks.7.attn.hook_z (head 2)"),
        ({"hook_name": "blocks.7.attn.hook_q", "hook_head_index": 3}, "blocks.7.attn.hook_q (head 3)"),
        ({"hook_point": "blocks.7.attn.hook_q", "hook_point_head_index": 0}, "blocks.7.attn.hook_q (head 0)"),
        ({"metadata": {"hook_name": "blocks.7.attn.hook_q", "hook_head_index": None}}, "blocks.7.attn.hook_q"),
        ({"hook_name": "blocks.{layer}.hook_resid_pre"}, None),
        ({"hook_name": "resid_post"}, None),
        ({"hook_point_name": "blocks.5.hook_resid_pre"}, "blocks.5.hook_resid_pre"),
        ({"layer_name": "model.layers.5"}, "model.layers.5"),
        ({"submodule": "transformer.h.5.mlp"}, "transformer.h.5.mlp"),
        ({"layer": 5, "activation_type": "resid_post"}, "blocks.5.hook_resid_post"),
        ({"layer": 5, "module_name": "my.sae", "activation": "relu"}, None),
        ({"hook_name": None, "activation": "topk", "activation_fn": "relu", "layers": 12}, None),
    ],
)
def test_a_hook_point_in_other_words(config: dict[str, Any], hook: str | None, tmp_path: Path) -> None:
    assert load(with_config(tmp_path / "a", config)).hook_point == hook


def test_a_template_without_a_layer_is_said_and_not_taken_for_a_place(tmp_path: Path) -> None:
    path = with_config(tmp_path / "a", {"hook_name": "blocks.{layer}.hook_resid_pre"})
    assert any("no layer" in note for note in load(path).notes)
    assert any("no layer" in note for note in inspect(path).notes)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model_name": "m"}, "m"),
        ({"metadata": {"model_name": "m"}}, "m"),
        ({"tlens_model_name": "m", "sae": {"model": "topk"}}, "m"),
        ({"trainer": {"lm_name": "m"}}, "m"),
        ({"model": {"name": "m"}}, "m"),
        ({"model": {"value": "m", "desc": None}}, "m"),
        ({"model": "sae", "model_name_or_path": "m"}, "m"),
        ({"sae": {"model": "topk"}}, None),
        ({"model_class_name": "HookedTransformer", "model_kwargs": {}}, None),
    ],
)
def test_a_model_in_other_words(config: dict[str, Any], model: str | None, tmp_path: Path) -> None:
    assert load(with_config(tmp_path / "a", config)).model == model


def test_another_head_is_another_place(tmp_path: Path) -> None:
    config = {"model_name": "gpt2-small", "hook_name": "blocks.7.attn.hook_q"}
    paths = [with_config(tmp_path / f"h{h}", config | {"hook_head_index": h}, seed=h) for h in (3, 5)]
    assert "(head 3)" in refused(*paths)
    twin = with_config(tmp_path / "twin", config | {"hook_head_index": 3}, seed=9)
    assert not any("hook" in c for c in sg.compare(paths[0], twin).caveats)


def test_wandb_writes_every_value_in_a_table_of_its_own(tmp_path: Path) -> None:
    config = {
        "wandb_version": 1, "_wandb": {"value": {"cli_version": "0.19"}, "desc": None},
        "hook_name": {"value": "blocks.3.hook_resid_pre", "desc": None}, "model_name": {"value": "gpt2", "desc": None},
    }  # fmt: skip
    d = load(with_config(tmp_path / "files", config, "config.yaml"))
    assert (d.hook_point, d.model) == ("blocks.3.hook_resid_pre", "gpt2")


@pytest.mark.parametrize("mark", ["_cfg.json", "_config.json", ".cfg.json", "_cfg.yaml"])
def test_a_configuration_that_bears_the_name_of_its_weights(mark: str, tmp_path: Path) -> None:
    for layer in (5, 10):
        put(tmp_path / f"L{layer}_v9.pt", sae(layer))
        said = {"model_name": "gpt2-small", "act_name": f"blocks.{layer}.attn.hook_z"}
        (tmp_path / f"L{layer}_v9{mark}").write_text(json.dumps(said))
    assert load(tmp_path / "L5_v9.pt").model == "gpt2-small"
    refused(tmp_path / "L5_v9.pt", tmp_path / "L10_v9.pt")


@pytest.mark.parametrize(
    "out",
    [
        {"is_transcoder": True, "out_hook_point": "blocks.8.hook_mlp_out", "out_hook_point_layer": 8},
        {"hook_name_out": "blocks.8.hook_mlp_out"},
        {"hook_point_out": "blocks.8.hook_mlp_out"},
        {"hf_hook_point_out": "model.layers.8.mlp.output"},
        {"metadata": {"hook_name_out": "blocks.8.hook_mlp_out"}},
        {"is_transcoder": True, "out_hook_point": "blocks.{layer}.hook_mlp_out", "out_hook_point_layer": 8},
        {"output_hook_name": "transformer.h.8.mlp"},
        {"is_transcoder": "true", "out_hook_point": "blocks.8.hook_mlp_out"},
    ],
)
def test_a_transcoder_lives_where_it_writes(out: dict[str, Any], tmp_path: Path) -> None:
    reads = "blocks.8.ln2.hook_normalized"
    t = with_config(tmp_path / "t", {"hook_point": reads, "hook_point_layer": 8, **out})
    s = with_config(tmp_path / "s", {"hook_name": reads}, seed=1)
    mlp = with_config(tmp_path / "m", {"hook_name": "blocks.8.hook_mlp_out"}, seed=2)
    assert "transcoder" in refused(t, s)
    assert inspect(t).dictionaries[0].transcoder
    assert any("transcoder" in note for note in load(t).notes)
    compared = sg.compare(t, mlp)
    assert any("'t' is a transcoder and 'm' is not" in c for c in compared.caveats)
    assert "(transcoder)" in compared.confounds.finding("hook point").a
    for on in ("encoder", "both"):
        with pytest.raises(ValueError, match="different hook point of the encoder"):
            sg.compare(t, mlp, on=on)
    with pytest.raises(ValueError, match="different hook point of the encoder"):
        sg.agreement(t, mlp)


def test_an_sae_that_names_its_place_twice_is_not_a_transcoder(tmp_path: Path) -> None:
    both = {"hook_point_in": "blocks.6.hook_resid_pre", "hook_point_out": "model.layers.5.output"}
    d = load(with_config(tmp_path / "a", both))
    assert (d.hook_point, d.notes) == ("blocks.6.hook_resid_pre", ())


def test_a_transcoder_of_unknown_output_has_no_known_place(tmp_path: Path) -> None:
    t = with_config(tmp_path / "t", {"architecture": "transcoder", "hook_name": "blocks.8.ln2.hook_normalized"})
    s = with_config(tmp_path / "s", {"hook_name": "blocks.8.ln2.hook_normalized"}, seed=1)
    caveats = sg.compare(t, s).caveats
    assert any("hook point of t unknown" in c for c in caveats)
    assert any("is a transcoder" in c for c in caveats)


def test_one_place_under_two_names_is_compared(tmp_path: Path) -> None:
    names = [
        ("gpt2-small", "blocks.6.hook_resid_pre"), ("openai-community/gpt2", "blocks.5.hook_resid_post"),
        ("gpt2", "transformer.h.5"),
    ]  # fmt: skip
    paths = [
        with_config(tmp_path / f"r{i}", {"model_name": model, "hook_name": hook}, seed=i)
        for i, (model, hook) in enumerate(names)
    ]
    for other in paths[1:]:
        compared = sg.compare(paths[0], other)
        assert not any("model" in c or "hook" in c for c in compared.caveats)
        assert {compared.confounds.finding(check).verdict for check in ("model", "hook point")} == {"same"}
    seeds = sg.seeds(paths, matching="mutual")
    assert not any("hook" in c for c in seeds.caveats)


def test_a_configuration_that_is_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    path = put(tmp_path / SAELENS, sae())
    (tmp_path / "cfg.json").symlink_to(tmp_path / "gone")
    [note] = load(path).notes
    assert note.startswith("cfg.json cannot be read (")


@pytest.mark.parametrize(
    ("name", "text", "hook"),
    [
        ("cfg.json", b'\xef\xbb\xbf{"hook_name": "blocks.3.hook_resid_pre"}', "blocks.3.hook_resid_pre"),
        ("cfg.json", '{"hook_name": "blocks.3.hook_resid_pre"}'.encode("utf-16"), "blocks.3.hook_resid_pre"),
        ("config.yaml", b"hook_name: blocks.3.x\nbetas: !!python/tuple [0.9, 0.999]\n", "blocks.3.x"),
        ("config.yaml", b"hook_name: blocks.3.x\nz: !!python/object:a.B {c: 1}\n", "blocks.3.x"),
        ("config.yaml", b"\xef\xbb\xbfhook_name: blocks.3.hook_resid_pre\n", "blocks.3.hook_resid_pre"),
        ("cfg.json", b"{'hook_name': 'blocks.3.hook_resid_pre'}", None),
        ("cfg.json", b"", None),
        ("cfg.json", b"[1, 2]", None),
        ("cfg.json", b"[" * 100_000, None),
        ("config.yaml", b"hook_name: [", None),
        ("config.yaml", b"hook_name: \x00", None),
        ("config.yaml", b"# " + b"x" * 300_000, None),
    ],
)  # fmt: skip
def test_a_configuration_is_read_or_it_is_said_that_it_is_not(
    name: str, text: bytes, hook: str | None, tmp_path: Path
) -> None:
    path = put(tmp_path / SAELENS, sae())
    (tmp_path / name).write_bytes(text)
    d, found = load(path), inspect(path)
    assert d.hook_point == hook
    if hook is None:
        [note] = d.notes
        assert note.startswith(f"{name} cannot be read (")
        assert "\n" not in note
        assert found.notes == (note,)
        assert note in str(found)
    else:
        assert d.notes == ()


def test_a_tag_of_yaml_runs_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / SAELENS, sae())
    (tmp_path / "config.yaml").write_text(
        f"x: !!python/object/apply:os.mkdir ['{tmp_path}/made']\nhook_name: blocks.1.x\n"
    )
    assert load(path).hook_point == "blocks.1.x"
    assert not (tmp_path / "made").exists()


def test_an_object_or_mapping_speaks_through_the_same_words() -> None:
    cfg = {"model_name": "gpt2", "hook_name": "blocks.7.attn.hook_q", "hook_head_index": 3}
    d = sg.as_dictionary({"W_dec": np.eye(3, 5), "cfg": cfg})
    assert (d.model, d.hook_point) == ("gpt2", "blocks.7.attn.hook_q (head 3)")


def test_a_module_s_input_and_output_make_a_transcoder(tmp_path: Path) -> None:
    said = {"trainer": {"submodule_name": "model.layers.5.mlp"}, "buffer": {"io": "in_and_out"}}
    d = load(with_config(tmp_path / "a", said))
    assert (d.hook_point, d.metadata["hook_point_in"]) == ("model.layers.5.mlp", "model.layers.5.mlp.input")


@pytest.mark.parametrize("names", [("sae_v1", "sae_v2"), ("seedA", "seedB")])
def test_the_name_of_a_module_is_a_place_only_where_it_reads_as_one(names: tuple[str, str], tmp_path: Path) -> None:
    paths = []
    for i, name in enumerate(names):
        w = sae(i)
        tree = {"decoder.weight": w["W_enc"], "encoder.0.weight": w["W_dec"]}
        paths.append(put(tmp_path / f"{i}.pt", {f"{name}.{key}": value for key, value in tree.items()}))
    assert load(paths[0]).hook_point is None
    assert load(f"{paths[0]}::{names[0]}").n_latents == N
    assert sg.compare(*paths).a_to_b.mmcs < 1
    both = put(tmp_path / "both.pt", {k: v for path in paths for k, v in torch.load(path).items()})
    assert load(f"{both}::{names[1]}").fingerprint == load(paths[1]).fingerprint


def stacks(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    put(folder / SAELENS, {key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_list_of_hook_points_names_one_per_layer(tmp_path: Path) -> None:
    w = torch.randn(3, N, D, generator=torch.Generator().manual_seed(1))
    points = [f"blocks.{i}.hook_resid_post" for i in (4, 7, 9)]
    crosscoder = stacks(tmp_path / "crosscoder", {"hook_points": points}, {"W_D": w, "W_E": w.transpose(1, 2)})
    assert [load(f"{crosscoder}::layer={i}").hook_point for i in range(3)] == points
    assert load(crosscoder).hook_point == " + ".join(points)
    refused(f"{crosscoder}::layer=0", f"{crosscoder}::layer=1")
    moved = ["blocks.5.hook_resid_pre", "transformer.h.7", "blocks.9.hook_resid_post"]
    twin = stacks(tmp_path / "twin", {"hook_points": moved}, {"W_D": w, "W_E": w.transpose(1, 2)})
    assert place_key(load(twin)) == place_key(load(crosscoder))
    models = {"hook_points": points, "model_names": ["base", "tuned"]}
    over_models = stacks(tmp_path / "models", models, {"W_dec": w.transpose(0, 1), "W_enc": w.transpose(1, 2)})
    assert load(f"{over_models}::model=1").hook_point is None  # Its outputs are models, not layers.


@pytest.mark.parametrize(
    "config",
    [
        {"hook_points_in": [f"blocks.{i}.ln2.hook_normalized" for i in range(3)],
         "hook_points_out": [f"blocks.{i}.hook_mlp_out" for i in range(3)]},
        {"tl_input_template": "blocks.{}.ln2.hook_normalized", "tl_output_template": "blocks.{}.hook_mlp_out"},
    ],
    ids=["lists", "templates"],
)  # fmt: skip
def test_each_layer_of_a_cross_layer_transcoder_is_a_place_of_its_own(config: dict[str, Any], tmp_path: Path) -> None:
    w = torch.randn(3, N, D, generator=torch.Generator().manual_seed(1))
    clt = stacks(tmp_path / "clt", config, {f"W_D.{i}": w[: i + 1] for i in range(3)} | {"W_E": w.transpose(1, 2)})
    one = load(f"{clt}::source=1::layer=2")
    assert (one.metadata["hook_point_in"], one.hook_point) == ("blocks.1.ln2.hook_normalized", "blocks.2.hook_mlp_out")
    assert load(f"{clt}::source=1").hook_point == "blocks.1.ln2.hook_normalized"
    refused(f"{clt}::source=0::layer=1", f"{clt}::source=0::layer=2")


def test_the_model_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = with_config(tmp_path / "a", {"hook_point_in": "blocks.5.hook_resid_post"}, "config.json")
    (path.parent / "lm_config.json").write_text(json.dumps({"model_name": "pythia-70m", "backend": "auto"}))
    assert (load(path).model, load(path).hook_point) == ("pythia-70m", "blocks.5.hook_resid_post")


def test_a_file_whose_name_is_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = put(tmp_path / f"{'x' * 240}_step_9.pt", sae())
    assert load(path).n_latents == N
    with pytest.raises(SourceError, match="does not exist"):
        load(tmp_path / f"{'x' * 300}.pt")
