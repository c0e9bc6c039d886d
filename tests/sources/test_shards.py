"""Tests of checkpoints in several files: torch.distributed.checkpoint, shards with an index, and a file per layer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_wrapping import reads_as, saelens, tensor
from written import B_N, DEC, ENC, D, L, N, random, torch_bytes

from sae_geometry.sources import LayoutError, SourceError, inspect, load

# --- torch.distributed.checkpoint ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch.distributed.checkpoint as dcp  # The import takes seconds, which other tests should not pay for.

    folder = tmp_path_factory.mktemp("dcp") / "layer6" / "sae_weights.dcp"
    tree = {"encoder.weight": tensor(ENC), "decoder.weight": tensor(DEC.T), "encoder.bias": tensor(B_N).bfloat16()}
    with warnings.catch_warnings(action="ignore"):  # It warns that there is no process group.
        dcp.save({**tree, "step": 7}, checkpoint_id=str(folder))
    (folder.parent / "config.json").write_text(json.dumps({"hook_point_in": "blocks.6.hook_resid_pre"}))
    return folder


def test_a_folder_of_shards_is_read_whole(distributed: Path) -> None:
    for path in (distributed, distributed.parent, distributed / ".metadata"):
        d = load(path)
        assert reads_as(d, DEC, ENC)
        assert (d.name, d.hook_point) == ("layer6", "blocks.6.hook_resid_pre")
    assert inspect(distributed).container == "dcp"
    with pytest.raises(SourceError, match=r"is one shard of a torch.distributed.checkpoint: give its folder"):
        load(distributed / "__0_0.distcp")


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_shard_alone_names_the_conversion(distributed: Path, tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes((distributed / "__0_0.distcp").read_bytes())
    for place in (tmp_path / "__0_0.distcp", tmp_path):
        with pytest.raises(SourceError, match=r"torch.distributed.checkpoint.*format_utils dcp_to_torch"):
            load(place)
    (tmp_path / "x.pt").write_bytes((distributed / "__0_0.distcp").read_bytes())
    with pytest.raises(SourceError, match=r"several archives end to end.*format_utils dcp_to_torch"):
        load(tmp_path / "x.pt")


def test_a_tensor_in_pieces(tmp_path: Path) -> None:
    """Build by hand what two processes write, each its own rows."""
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    halves = {(0, 0): tensor(DEC[:4]), (4, 0): tensor(DEC[4:])}
    stored, chunks = {}, []
    for i, (at, part) in enumerate(halves.items()):
        raw = torch_bytes(part)
        (tmp_path / f"__{i}_0.distcp").write_bytes(b"\0" * i + raw)
        chunks.append(md.ChunkStorageMetadata(torch.Size(at), part.shape))
        index = md.MetadataIndex("W_dec", torch.Size(at), i)
        stored[index] = _StorageInfo(f"__{i}_0.distcp", i, len(raw))
    properties = md.TensorProperties(dtype=torch.float32)
    table = {"W_dec": md.TensorStorageMetadata(properties, torch.Size((N, D)), chunks)}
    write_metadata(tmp_path, md.Metadata(table, None, stored))
    with pytest.warns(UserWarning, match="no other tensor shows which axis"):
        assert reads_as(load(tmp_path), DEC, None)
    (tmp_path / "__1_0.distcp").unlink()
    with pytest.raises(SourceError, match=r"needs __1_0.distcp, which is missing"):
        load(tmp_path)
    stored.popitem()
    write_metadata(tmp_path, md.Metadata(table, None, stored))
    with pytest.raises(SourceError, match="its pieces do not fill its shape"):
        load(tmp_path)


@pytest.mark.parametrize("second", [1, -1])
def test_pieces_that_overlap_and_leave_a_gap_are_refused(second: int, tmp_path: Path) -> None:
    """The pieces have as many rows in total as the tensor, but overlap or start before its beginning."""
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    stored = {}
    for i, (start, rows) in enumerate([(0, DEC[:-1]), (second, DEC[-1:])]):
        raw = torch_bytes(tensor(rows))
        (tmp_path / f"__{i}_0.distcp").write_bytes(raw)
        index = md.MetadataIndex("W_dec", index=i)
        object.__setattr__(index, "offset", (start, 0))  # torch.Size would refuse a negative one.
        stored[index] = _StorageInfo(f"__{i}_0.distcp", 0, len(raw))
    table = {"W_dec": md.TensorStorageMetadata(md.TensorProperties(dtype=torch.float32), torch.Size((N, D)), [])}
    write_metadata(tmp_path, md.Metadata(table, None, stored))
    with pytest.raises(SourceError, match="its pieces do not fill its shape"):
        load(tmp_path, latent_axis=0)


def test_pieces_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Every row of a large tensor refers to the same few bytes."""
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    raw, n = torch_bytes(tensor(DEC[:1])), 500
    (tmp_path / "__0_0.distcp").write_bytes(raw)
    stored = {
        md.MetadataIndex("W_dec", torch.Size((i, 0)), i): _StorageInfo("__0_0.distcp", 0, len(raw)) for i in range(n)
    }
    table = {"W_dec": md.TensorStorageMetadata(md.TensorProperties(dtype=torch.float32), torch.Size((n, D)), [])}
    write_metadata(tmp_path, md.Metadata(table, None, stored))
    with pytest.raises(SourceError, match="refers to more bytes than its shards hold"):
        load(tmp_path, latent_axis=0)


def write_metadata(folder: Path, metadata: object) -> None:
    import pickle

    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def test_a_hostile_metadata_runs_nothing(distributed: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    folder = copied(distributed, tmp_path / "x.dcp")
    for evil in (pickle.dumps(Evil()), pickle.dumps({"a": Evil()}), b"\x80\x04N.", b"junk", b""):
        (folder / ".metadata").write_bytes(evil)
        with pytest.raises(SourceError) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    (folder / ".metadata").write_bytes(
        (distributed / ".metadata").read_bytes().replace(b"__0_0.distcp", b"../_0.distcp")
    )
    with pytest.raises(SourceError, match="refers to files outside the folder"):
        load(folder)


@pytest.mark.parametrize("name", ["step_9.dcp", "step_9"])
def test_the_configuration_may_lie_among_the_shards(name: str, distributed: Path, tmp_path: Path) -> None:
    folder = copied(distributed, tmp_path / name)
    (folder / "cfg.json").write_text(json.dumps({"hook_name": "blocks.3.hook_resid_pre"}))
    (tmp_path / "cfg.json").write_text(json.dumps({"hook_name": "blocks.4.hook_resid_pre", "model_name": "gpt2"}))
    d = load(folder)
    assert (d.hook_point, d.model) == ("blocks.3.hook_resid_pre", "gpt2")


# --- shards with an index ------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    owners = {}
    for i, names in enumerate((("W_enc", "b_enc"), ("W_dec", "b_dec")), start=1):
        shard = f"model-0000{i}-of-00002.safetensors"
        save_file({k: saelens()[k] for k in names}, tmp_path / shard)
        owners |= dict.fromkeys(names, shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": owners}))
    return tmp_path


def test_shards_are_read_by_their_index(sharded: Path) -> None:
    for path in (sharded, sharded / "model.safetensors.index.json", sharded / "model-00002-of-00002.safetensors"):
        assert reads_as(load(path), DEC, ENC)
        assert load(path).name == sharded.name
    (sharded / "model.safetensors.index.json").unlink()
    for path in (sharded, sharded / "model-00001-of-00002.safetensors"):
        assert reads_as(load(path), DEC, ENC)
    (sharded / "model-00001-of-00002.safetensors").unlink()
    assert any("the checkpoint lacks 1 shard" in n for n in load(sharded).notes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t["weight_map"].update(W_dec="model-00001-of-00002.safetensors"),
            "which does not contain that tensor",
        ),
        (lambda t: t["weight_map"].update(W_dec="gone.safetensors"), "which is missing"),
        (lambda t: t["weight_map"].update(W_dec="x" * 300), "which is missing"),
        (lambda t: t["weight_map"].update(W_dec="../evil.safetensors"), "not a file next to it; refused"),
        (lambda t: t["weight_map"].update(W_dec=3), "not a file next to it; refused"),
        (lambda t: t["weight_map"].clear(), "lists no tensors"),
        (lambda t: t.pop("weight_map"), "has no table weight_map"),
    ],
)
def test_an_index_that_is_wrong(change: Callable[[dict[str, dict[str, object]]], object], sentence: str, sharded: Path):
    path = sharded / "model.safetensors.index.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(SourceError, match=sentence):
        load(sharded)


def test_a_folder_of_a_file_a_layer(tmp_path: Path) -> None:
    decoders, encoders = random(L, N, L, D), random(L, N, D)
    for i in range(L):
        tensors = {"w_dec": tensor(decoders[i]), "w_enc": tensor(encoders[i].T), "b_enc": tensor(B_N + i)}
        save_file(tensors, tmp_path / f"params_layer_{i}.safetensors")
    with pytest.raises(LayoutError, match="contains 3 dictionaries; choose one by adding ::source=0, ::source=1"):
        load(tmp_path)
    d = load(f"{tmp_path}::source=2")
    assert d.layout == "gemma_scope_2_crosscoder"
    assert reads_as(d, np.concatenate([decoders[2, :, i] for i in range(L)], axis=1), encoders[2])
    assert d.encoder_bias is not None
    assert np.array_equal(d.encoder_bias.numpy(), B_N + 2)
    one = load(f"{tmp_path / 'params_layer_1.safetensors'}::layer=2")
    assert reads_as(one, decoders[1, :, 2], encoders[1])
