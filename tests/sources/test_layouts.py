"""Tests of every row of the table of layouts, on the shared real files and small files written here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CHECKPOINTS
from safetensors.torch import save_file
from written import B_D, B_N, DEC, ENC, MULTI, MULTI_ENC, WRITTEN, D, L, N, Written, cat, random, unit, write

from sae_geometry.sources import LayoutError, OrientationWarning, SourceError, inspect, load
from sae_geometry.sources.layouts.table import LAYOUTS

SHARED = sorted(p.name for p in CHECKPOINTS.iterdir())
# Our name for the format that each shared file states.
OUR_NAME = {"openai": "openai", "gemma_scope": "gemma_scope", "circuit_tracer_clt": "circuit_tracer_clt"}


def said(name: str) -> dict[str, Any]:
    return dict(json.loads((CHECKPOINTS / name / "expected.json").read_text()))


def test_the_shared_checkpoints_are_there() -> None:
    assert len(SHARED) >= 14


@pytest.mark.parametrize("name", SHARED)
def test_a_real_file_reads_as_expected(name: str) -> None:
    expected, folder = said(name), CHECKPOINTS / name
    d = load(folder / expected["file"], "all")
    assert np.abs(d.directions.numpy() - np.load(folder / "expected_decoder.npy")).max() <= 1e-6
    assert d.encoder_directions is not None
    encoder = unit(np.load(folder / "expected_encoder.npy"))
    assert np.abs(d.encoder_directions.numpy() - encoder).max() <= 1e-6
    assert d.layout == OUR_NAME.get(expected["format"], expected["format"])
    assert d.n_latents == expected["n_latents"]
    assert float(d.decoder_norms.min()) == pytest.approx(expected["decoder_norm_min"], rel=1e-6)
    assert float(d.decoder_norms.max()) == pytest.approx(expected["decoder_norm_max"], rel=1e-6)
    if name != "gemma_scope_npz":  # Only the repository's name states its hook point.
        assert d.hook_point == expected["hook_name"]
    if "alive_indices" in expected:
        assert d.alive_mask is not None
        assert d.alive_mask.nonzero().flatten().tolist() == expected["alive_indices"]
    if "dead_indices" in expected:
        assert d.alive_mask is not None
        assert (~d.alive_mask).nonzero().flatten().tolist() == expected["dead_indices"]
        assert load(folder / expected["file"]).n_latents == expected["n_latents"] - len(expected["dead_indices"])


@pytest.mark.parametrize("name", ["crosscoder_dictionary_learning", "mntss_clt"])
def test_one_output_of_several(name: str) -> None:
    expected, folder = said(name), CHECKPOINTS / name
    per_layer = np.load(folder / "expected_decoder_per_layer.npy")
    for i, layer in enumerate(expected.get("out_layers", range(len(per_layer)))):
        d = load(f"{folder / expected['file']}::layer={layer}")
        assert np.abs(d.directions.numpy() - unit(per_layer[i])).max() <= 1e-6
        assert f"::layer={layer}" in str(d.address)
    with pytest.raises(LayoutError, match="writes to layers"):
        load(f"{folder / expected['file']}::layer=9")
    if name == "mntss_clt":
        with pytest.raises(LayoutError, match="not write to several models"):
            load(f"{folder / expected['file']}::model=0")
    else:  # This format stacks layers or models without saying which.
        one = load(f"{folder / expected['file']}::model=1")
        assert np.abs(one.directions.numpy() - unit(per_layer[1])).max() <= 1e-6


def test_gemma_scope_knows_its_hook_by_the_repository(tmp_path: Path) -> None:
    place = tmp_path / "google" / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82"
    place.mkdir(parents=True)
    source = CHECKPOINTS / "gemma_scope_npz" / said("gemma_scope_npz")["file"]
    (place / "params.npz").write_bytes(source.read_bytes())
    d = load(place)
    assert (d.hook_point, d.name) == ("blocks.12.hook_resid_post", "average_l0_82")


@pytest.mark.parametrize("case", WRITTEN, ids=lambda c: f"{c[0]}-{c[3]}-{len(c[1])}")
def test_every_layout_by_a_written_file(case: Written, tmp_path: Path) -> None:
    layout, tensors, config, container, decoder, encoder = case
    path = write(tmp_path, tensors, config, container)
    d = load(path, "all")
    assert d.layout == layout
    assert np.abs(d.directions.numpy() - unit(decoder)).max() <= 1e-6
    if encoder is None:
        assert d.encoder_directions is None
    else:
        assert d.encoder_directions is not None
        assert np.abs(d.encoder_directions.numpy() - unit(encoder)).max() <= 1e-6
    found = inspect(path)
    assert found.layout == layout
    assert {t.key for t in found.tensors} == set(tensors)


def test_every_row_of_the_table_is_tried_by_a_file() -> None:
    # These hold several dictionaries in a file.
    elsewhere = {"llamascopium_clt", "crosslayer_transcoder", "gemma_scope_2_crosscoder"}
    assert {layout.name for layout in LAYOUTS} == {c[0] for c in WRITTEN} | elsewhere


def test_the_page_of_layouts_has_every_row() -> None:
    page, readme, changes = (
        (Path(__file__).parents[2] / file).read_text(encoding="utf-8")
        for file in ("docs/layouts.md", "README.md", "CHANGELOG.md")
    )
    names = {layout.name for layout in LAYOUTS}
    assert {name for name in names if f"`{name}`" not in page} == set()
    n = len(names - {"linear", "rows", "sae_geometry", "sae_geometry_consensus"})
    assert f"[{n} layouts](docs/layouts.md)" in readme
    assert f"of {n} layouts" in changes


def test_a_transcoder_stored_by_the_layer_it_writes_into(tmp_path: Path) -> None:
    into = {f"W_D.{i}": random(i + 1, N, D + i * 0) + i for i in range(L)}
    path = write(tmp_path, {**into, "W_E": MULTI_ENC.transpose(0, 2, 1), "b_E": random(L, N)}, {}, "safetensors")
    with pytest.raises(LayoutError, match="contains 3 dictionaries; choose one by adding ::source=0"):
        load(path)
    d = load(f"{path}::source=1")
    assert np.abs(d.directions.numpy() - unit(cat(np.stack([into["W_D.1"][1], into["W_D.2"][1]])))).max() <= 1e-6
    assert d.encoder_directions is not None
    assert np.abs(d.encoder_directions.numpy() - unit(MULTI_ENC[1])).max() <= 1e-6
    flat = write(tmp_path / "flat", {**into, "W_E": random(D)}, {}, "safetensors")
    with pytest.raises(LayoutError):  # This is not the encoder of any of these.
        load(f"{flat}::source=1")
    one = load(f"{path}::source=1::layer=2")
    assert np.abs(one.directions.numpy() - unit(into["W_D.2"][1])).max() <= 1e-6
    assert d.encoder_bias is not None
    assert np.array_equal(d.encoder_bias.numpy(), random(L, N)[1])
    assert all(f.transcoder for f in inspect(path).dictionaries)


def test_models_of_a_crosscoder(tmp_path: Path) -> None:
    tensors = {"W_dec": MULTI.transpose(1, 0, 2), "W_enc": MULTI_ENC.transpose(0, 2, 1), "b_dec": random(L, D)}
    path = write(tmp_path, tensors, {}, "pt")
    d = load(f"{path}::model=1")
    assert np.abs(d.directions.numpy() - unit(MULTI[1])).max() <= 1e-6
    assert d.encoder_directions is not None
    assert np.abs(d.encoder_directions.numpy() - unit(MULTI_ENC[1])).max() <= 1e-6
    assert d.decoder_bias is not None
    assert np.array_equal(d.decoder_bias.numpy(), random(L, D)[1])
    with pytest.raises(LayoutError, match="not write to several layers"):
        load(f"{path}::layer=1")
    whole = load(path)
    assert any("concatenation of models 0, 1, 2" in n for n in whole.notes)
    assert whole.d_in == L * D


def test_both_halves_of_a_transcoder_are_found(tmp_path: Path) -> None:
    for name in ("W_dec_1.safetensors", "W_enc_1.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((CHECKPOINTS / "mntss_clt" / name).read_bytes())
    whole = load(tmp_path)
    assert whole.encoder_directions is not None
    assert whole.fingerprint == load(tmp_path / "W_dec_1.safetensors").fingerprint
    assert load(f"{tmp_path}::layer=2").hook_point == "blocks.2.hook_mlp_out"
    (tmp_path / "W_enc_1.safetensors").unlink()
    assert load(tmp_path).encoder_directions is None


SQUARE = random(D, D)


def square(folder: Path, name: str) -> Path:
    tensors = {"W_dec": torch.from_numpy(SQUARE.copy()), "W_enc": torch.from_numpy(SQUARE.T.copy() + 1),
               "b_enc": torch.zeros(D), "b_dec": torch.zeros(D)}  # fmt: skip
    path = folder / name
    torch.save(tensors, path)
    return path


def test_a_square_file_takes_saelens_orientation_with_a_warning(tmp_path: Path) -> None:
    path = square(tmp_path, "some.pt")
    with pytest.warns(OrientationWarning, match="square.*latent_axis=1 takes the other"):
        d = load(path)
    assert np.abs(d.directions.numpy() - unit(SQUARE)).max() <= 1e-6
    assert d.encoder_directions is not None
    assert np.abs(d.encoder_directions.numpy() - unit(SQUARE + 1)).max() <= 1e-6
    assert any("square" in note for note in d.notes)
    assert inspect(path).dictionaries[0].assumed is not None


def test_latent_axis_overrides_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = load(square(tmp_path, "some.pt"), latent_axis=1)
    assert np.abs(d.directions.numpy() - unit(SQUARE.T)).max() <= 1e-6
    assert d.encoder_directions is not None
    assert np.abs(d.encoder_directions.numpy() - unit((SQUARE + 1).T)).max() <= 1e-6
    rows = write(tmp_path, {"array": DEC}, {}, "npy")
    assert load(rows, latent_axis=1).n_latents == D


def test_a_square_qwen_scope_file_is_told_by_its_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = load(square(tmp_path, "layer3.sae.pt"))
    assert (d.layout, d.hook_point) == ("qwen_scope", "blocks.3.hook_resid_post")
    assert np.abs(d.directions.numpy() - unit(SQUARE.T)).max() <= 1e-6


def test_the_name_does_not_decide_where_sizes_can(tmp_path: Path) -> None:
    tensors = {"W_dec": torch.from_numpy(DEC), "W_enc": torch.from_numpy(ENC.T.copy()), "b_enc": torch.zeros(N)}
    torch.save(tensors, tmp_path / "layer0.sae.pt")
    assert load(tmp_path / "layer0.sae.pt").layout == "saelens"


def test_sizes_that_contradict_each_other_fit_no_layout(tmp_path: Path) -> None:
    wrong = {"decoder.weight": DEC, "encoder.weight": ENC.T, "encoder.bias": B_N}  # both turned
    with pytest.raises(LayoutError, match="no known layout"):
        load(write(tmp_path, wrong, {}, "pt"))


def test_an_unknown_layout_shows_what_is_there_and_the_call_that_would_do(tmp_path: Path) -> None:
    path = write(tmp_path, {"features.matrix": DEC.T, "other": B_N}, {}, "safetensors")
    with pytest.raises(LayoutError) as caught:
        load(path)
    text = str(caught.value)
    assert "features.matrix [5, 12] float32" in text
    assert "Dictionary.from_decoder(tensors['features.matrix'], latent_axis=1)" in text
    assert "\n" not in text


def test_a_matrix_that_nothing_says_is_tied_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="none of them is named like a decoder"):
        load(write(tmp_path, {"_orig_mod.W": DEC.T}, {}, "pt"))


def test_a_wrapped_state_dict_is_unwrapped(tmp_path: Path) -> None:
    inner = {"W_dec": torch.from_numpy(DEC), "W_enc": torch.from_numpy(ENC.T.copy()), "b_enc": torch.zeros(N)}
    torch.save({"state_dict": inner, "step": 7}, tmp_path / "x.pt")
    d = load(tmp_path / "x.pt")
    assert np.abs(d.directions.numpy() - unit(DEC)).max() <= 1e-6
    assert d.metadata["step"] == 7


def test_several_hooks_in_one_file(tmp_path: Path) -> None:
    tensors = {}
    for i in (2, 6):
        tensors[f"blocks-{i}-hook_resid_pre.decoder.weight"] = torch.from_numpy(DEC.T.copy()) + i
        tensors[f"blocks-{i}-hook_resid_pre.encoder.0.weight"] = torch.from_numpy(ENC.copy())
    torch.save(tensors, tmp_path / "samples_1.pt")
    with pytest.raises(
        LayoutError, match=r"2 dictionaries; choose one by adding ::blocks.2.hook_resid_pre, ::blocks.6"
    ):
        load(tmp_path)
    for spelling in ("blocks.6.hook_resid_pre", "blocks-6-hook_resid_pre"):
        d = load(f"{tmp_path}::{spelling}")
        assert d.hook_point == "blocks.6.hook_resid_pre"
        assert np.abs(d.directions.numpy() - unit(DEC + 6)).max() <= 1e-6
    with pytest.raises(LayoutError, match=r"holds no ::blocks.3.x; add one of"):
        load(f"{tmp_path}::blocks.3.x")
    assert [f.choice for f in inspect(tmp_path).dictionaries] == ["blocks.2.hook_resid_pre", "blocks.6.hook_resid_pre"]


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("container", ["safetensors", "pt"])
def test_floating_types(dtype: torch.dtype, container: str, tmp_path: Path) -> None:
    tensor = torch.from_numpy(DEC).to(dtype)
    path = tmp_path / f"x.{container}"
    (save_file if container == "safetensors" else torch.save)({"W_dec": tensor, "b_enc": torch.zeros(N)}, path)
    expected = unit(tensor.to(torch.float64).numpy())
    assert np.abs(load(path).directions.numpy() - expected).max() <= 1e-7


def test_numpy_types_orders_and_compression(tmp_path: Path) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        np.savez_compressed(tmp_path / "x.npz", W_dec=np.asfortranarray(DEC.astype(dtype)), b_enc=B_N)
        assert np.abs(load(tmp_path / "x.npz").directions.numpy() - unit(DEC.astype(dtype))).max() <= 1e-6


def test_biases_are_kept_in_the_file_s_units(tmp_path: Path) -> None:
    path = write(tmp_path, {"W_dec": DEC, "W_enc": ENC.T, "b_enc": B_N, "b_dec": B_D}, {}, "safetensors")
    d = load(path)
    assert d.encoder_bias is not None
    assert d.decoder_bias is not None
    assert np.array_equal(d.encoder_bias.numpy(), B_N)
    assert np.array_equal(d.decoder_bias.numpy(), B_D)
    assert d.select([3, 1]).encoder_bias.tolist() == [float(B_N[3]), float(B_N[1])]  # type: ignore[union-attr]


def test_openai_frequencies(tmp_path: Path) -> None:
    base = {"decoder.weight": DEC.T, "encoder.weight": ENC, "pre_bias": B_D, "latent_bias": B_N}
    share = np.linspace(0, 0.5, N).astype(np.float32)
    d = load(write(tmp_path / "a", {**base, "latents_activation_frequency": share}, {}, "pt"))
    assert d.latent_ids.tolist() == list(range(1, N))
    assert d.frequency is not None
    assert d.frequency.tolist() == pytest.approx(share[1:].tolist())
    counts = np.arange(N).astype(np.float32)
    assert load(write(tmp_path / "b", {**base, "latents_activation_frequency": counts}, {}, "pt")).frequency is None
    never = load(write(tmp_path / "c", {**base, "latents_activation_frequency": np.ones(N, np.float32)}, {}, "pt"))
    assert never.alive.n_dead is None, "a buffer of ones is the initial value, not a frequency"


@pytest.mark.parametrize(
    ("config", "hook", "model", "transcoder"),
    [
        ({"metadata": {"hook_name": "blocks.6.x", "model_name": "m"}}, "blocks.6.x", "m", False),
        ({"hook_name": "blocks.6.x", "hook_layer": 6}, "blocks.6.x", None, False),
        ({"hook_point": "blocks.6.x", "model_name": "m"}, "blocks.6.x", "m", False),
        ({"metadata": {"hook_name": "a.in", "hook_name_out": "a.out"}}, "a.out", None, True),
        ({"architecture": "skip_transcoder", "hook_name": "a.in"}, None, None, True),
        ({"transcode": True}, None, None, True),
        ({"metadata": "nonsense", "hook_name": 7}, None, None, False),
    ],
)
def test_saelens_configurations(
    config: dict[str, Any], hook: str | None, model: str | None, transcoder: bool, tmp_path: Path
) -> None:
    wide = random(N, D + 2)
    path = write(tmp_path, {"W_dec": wide, "W_enc": ENC.T, "b_enc": B_N}, config, "safetensors")
    d = load(path)
    assert (d.hook_point, d.model, d.d_in) == (hook, model, D + 2)
    (found,) = inspect(path).dictionaries
    assert found.transcoder is transcoder
    assert ("output space" in str(inspect(path))) is transcoder
    assert any("output space" in n for n in d.notes) is transcoder


def test_configurations_that_are_broken_count_as_absent(tmp_path: Path) -> None:
    path = write(tmp_path, {"W_dec": DEC, "W_enc": ENC.T, "b_enc": B_N}, {}, "safetensors")
    bad: list[tuple[str, Callable[[], bytes]]] = [
        ("cfg.json", lambda: b"{"), ("config.json", lambda: b"[" * 100_000), ("config.yaml", lambda: b"a: [1"),
        ("conf.yaml", lambda: b"!!python/object/apply:os.system ['false']"), ("hyperparams.json", lambda: b"\xff\xfe"),
    ]  # fmt: skip
    for name, content in bad:
        (tmp_path / name).write_bytes(content())
    assert load(path).hook_point is None
    (tmp_path / "cfg.json").write_text(yaml.safe_dump({"hook_name": "h"}))
    assert load(path).hook_point is None, "YAML in a .json file is not JSON"


def test_a_sparsity_file_of_another_sae_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"W_dec": DEC, "W_enc": ENC.T, "b_enc": B_N}, {}, "safetensors")
    save_file({"sparsity": torch.zeros(N + 1)}, tmp_path / "sparsity.safetensors")
    with pytest.raises(SourceError, match="does not contain one log-frequency"):
        load(path)
    save_file({"sparsity": torch.tensor([-10.0] * 2 + [-9.0] * (N - 2))}, tmp_path / "sparsity.safetensors")
    d = load(path)
    assert d.latent_ids.tolist() == list(range(2, N))
    assert d.frequency is not None
    assert float(d.frequency[0]) == pytest.approx(9e-10, rel=1e-3)


def test_rows_without_a_direction(tmp_path: Path) -> None:
    bad = DEC.copy()
    bad[3] = 0
    bad[7, 1] = np.nan
    path = write(tmp_path, {"W_dec": bad, "W_enc": ENC.T, "b_enc": B_N}, {}, "safetensors")
    with pytest.raises(ValueError, match="latents 3, 7"):
        load(path)
    d = load(path, drop_bad=True)
    assert d.alive.bad_ids == (3, 7)
    assert d.n_latents == N - 2
    norms = inspect(path).dictionaries[0].norms
    assert norms is not None
    assert norms.n_bad == 2
