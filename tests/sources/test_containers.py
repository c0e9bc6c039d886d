"""Tests of unusual containers: streams, shards, files with a header before them, and types that torch lacks."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CHECKPOINTS
from safetensors.torch import save_file
from test_wrapping import reads_as, saelens, tensor
from written import B_N, DEC, ENC, D, L, N, random

from sae_geometry.sources import LayoutError, SourceError, as_dictionary, inspect, load

A_ZIP = CHECKPOINTS / "dl_autoencoder" / "ae.pt"


def torch_bytes(tree: object) -> bytes:
    out = io.BytesIO()
    torch.save(tree, out)
    return out.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch_bytes(tensor(DEC)) + torch_bytes(tensor(DEC.T)), "is several archives end to end"),
        (torch_bytes(saelens()) * 3, "is several archives end to end"),
        (npz_bytes(W_dec=DEC) * 2, "is several archives end to end"),
        (torch_bytes(saelens()) + b"\0" * 7, "has 7 bytes after its zip archive"),
        (npz_bytes(W_dec=DEC) + b"x", "has 1 byte after its zip archive"),
        (npy_bytes(DEC) * 2, "bytes after its array"),
        (b"#!/bin/sh\n" + torch_bytes(saelens()), "is not safetensors, a torch checkpoint"),
        (b'{"d": 5}\n' + torch_bytes(saelens()) * 2, "is several archives end to end"),
        (b'{"d": 5}\n' + torch_bytes(saelens()) + b"\n", "has 1 byte after its zip archive"),
        (b'{"d": 5}\nxx' + torch_bytes(saelens()), "is JSON text"),
        (b'{"d": 5\n' + torch_bytes(saelens()), "is JSON text"),
    ],
)
def test_no_byte_around_an_archive_is_passed_over(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(SourceError, match=sentence) as caught:
        load(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_zip_moved_by_bytes_that_its_directory_accounts_for(tmp_path: Path) -> None:
    """`zip -A` corrects the offsets, so that only the members' places reveal the extra bytes."""
    inner = torch_bytes(saelens())
    with (tmp_path / "x.pt").open("wb") as f, zipfile.ZipFile(io.BytesIO(inner)) as source:
        f.write(inner)
        with zipfile.ZipFile(f, "w") as archive:
            for name in source.namelist():
                archive.writestr(name, source.read(name))
    with pytest.raises(SourceError, match="is several archives end to end"):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize("padding", range(4))
def test_a_line_of_json_before_torch_s_archive(padding: int, tmp_path: Path) -> None:
    # The padding shifts numbers to any alignment.
    header = {"schema": 2, "cfg": {"d_vit": D}, "hook_name": "h" * (padding + 1)}
    (tmp_path / "sae.pt").write_bytes(json.dumps(header).encode() + b"\n" + torch_bytes(saelens()))
    d = load(tmp_path / "sae.pt")
    assert reads_as(d, DEC, ENC)
    assert d.hook_point == header["hook_name"]


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
    with pytest.raises(SourceError, match="its pieces do not make up its shape"):
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
    with pytest.raises(SourceError, match="its pieces do not make up its shape"):
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
    with pytest.raises(SourceError, match="points outside its folder"):
        load(folder)


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
        (lambda t: t["weight_map"].update(W_dec="model-00001-of-00002.safetensors"), "which does not hold it"),
        (lambda t: t["weight_map"].update(W_dec="gone.safetensors"), "which is not next to it"),
        (lambda t: t["weight_map"].update(W_dec="x" * 300), "which is not next to it"),
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
    with pytest.raises(LayoutError, match="holds 3 dictionaries; choose one by adding ::source=0, ::source=1"):
        load(tmp_path)
    d = load(f"{tmp_path}::source=2")
    assert d.layout == "gemma_scope_2_crosscoder"
    assert reads_as(d, np.concatenate([decoders[2, :, i] for i in range(L)], axis=1), encoders[2])
    assert d.encoder_bias is not None
    assert np.array_equal(d.encoder_bias.numpy(), B_N + 2)
    one = load(f"{tmp_path / 'params_layer_1.safetensors'}::layer=2")
    assert reads_as(one, decoders[1, :, 2], encoders[1])


# --- types ---------------------------------------------------------------------------------------------------------

SPARE = (torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e8m0fnu, torch.float8_e4m3fnuz)


@pytest.mark.parametrize("dtype", SPARE, ids=str)
def test_spare_tensors_of_other_types_spoil_nothing(dtype: torch.dtype, tmp_path: Path) -> None:
    tree = saelens() | {"extra": torch.zeros(4, dtype=dtype)}
    torch.save(tree, tmp_path / "x.pt")
    save_file(tree, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.pt", tmp_path / "x.safetensors"):
        assert reads_as(load(path), DEC, ENC)
    assert reads_as(as_dictionary(tree), DEC, ENC)


def test_types_that_torch_lacks(tmp_path: Path) -> None:
    """These are F4 and F6 of safetensors, and a storage class that torch has removed."""
    n = DEC.nbytes

    def written(**types: str) -> Path:
        header = {k: {"dtype": t, "shape": [N, D], "data_offsets": [0, n]} for k, t in types.items()}
        header["q"] = {"dtype": "F6_E2M3", "shape": [8], "data_offsets": [n, n + 6]}
        raw = json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + DEC.tobytes() + b"\0" * 6)
        return path

    with pytest.warns(UserWarning, match="no other tensor shows which axis"):
        assert reads_as(load(written(W_dec="F32")), DEC, None)
    with pytest.raises(LayoutError, match="W_dec of type F4_X, which torch does not have"):
        load(written(W_dec="F4_X"))
    with pytest.raises(LayoutError, match=r"W_dec of type F4\\n\\x1b\[2J, which"):
        load(written(W_dec="F4\n\x1b[2J"))
    with pytest.raises(SourceError, match=r"the tensor name 'W\\ndec' is too long or not printable"):
        load(written(**{"W\ndec": "F4_X"}))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_bytes(saelens()))) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            raw = source.read(name)
            target.writestr(name, raw.replace(b"FloatStorage", b"Quad8Storage") if name.endswith(".pkl") else raw)
    (tmp_path / "x.pt").write_bytes(out.getvalue())
    with pytest.raises(LayoutError, match="W_dec of type Quad8Storage, which torch does not have"):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("row", [0, 3])
def test_eight_bits_with_an_encoder_and_a_bad_row(dtype: torch.dtype, row: int, tmp_path: Path) -> None:
    tree = {k: v.to(dtype) for k, v in saelens().items()}
    save_file(tree, tmp_path / "x.safetensors")
    expected = {k: v.float().numpy() for k, v in tree.items()}
    assert reads_as(load(tmp_path / "x.safetensors"), expected["W_dec"], expected["W_enc"].T)
    silent = {**tree, "W_enc": tree["W_enc"].float().index_fill(1, torch.tensor([row]), 0).to(dtype)}
    assert any(f"1 latent with a zero encoder row ({row})" in n for n in as_dictionary(silent).notes)
    broken = {**tree, "W_enc": tree["W_enc"].float().index_fill(1, torch.tensor([row]), torch.nan).to(dtype)}
    with pytest.raises(ValueError, match=f"encoder rows with NaN or inf: latents {row}"):
        as_dictionary(broken)
    gone = {**tree, "W_dec": tree["W_dec"].float().index_fill(0, torch.tensor([row]), 0).to(dtype)}
    with pytest.raises(ValueError, match=rf"decoder rows without a direction \(1 zero\): latents {row}"):
        as_dictionary(gone)
    assert as_dictionary(gone, drop_bad=True).n_latents == N - 1


@pytest.mark.parametrize("name", ["step_9.dcp", "step_9"])
def test_the_configuration_may_lie_among_the_shards(name: str, distributed: Path, tmp_path: Path) -> None:
    folder = copied(distributed, tmp_path / name)
    (folder / "cfg.json").write_text(json.dumps({"hook_name": "blocks.3.hook_resid_pre"}))
    (tmp_path / "cfg.json").write_text(json.dumps({"hook_name": "blocks.4.hook_resid_pre", "model_name": "gpt2"}))
    d = load(folder)
    assert (d.hook_point, d.model) == ("blocks.3.hook_resid_pre", "gpt2")


# --- two values of one name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tree",
    [
        {1: saelens(), "1": saelens(DEC[::-1].copy())},
        {"a": saelens(), "a.W_dec": tensor(DEC)},
        {1: saelens(), 2: saelens(), "2": 3},
    ],
)
def test_two_values_of_one_name_are_refused(tree: dict[object, object], tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "x.pt")
    with pytest.raises(SourceError, match=r"two values named '[a12.W_dec]+'"):
        load(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"two keys that are the same string|two values named"):
        as_dictionary(tree)


def test_keys_that_are_numbers_name_their_tables(tmp_path: Path) -> None:
    torch.save({0.5: saelens(), None: saelens(DEC[::-1].copy())}, tmp_path / "x.pt")
    assert [d.choice for d in inspect(tmp_path / "x.pt").dictionaries] == ["0.5", "None"]
    assert reads_as(load(f"{tmp_path / 'x.pt'}::0.5"), DEC, ENC)
    torch.save({("a", 1): saelens()}, tmp_path / "x.pt")
    with pytest.raises(SourceError, match="neither strings nor numbers"):
        load(tmp_path / "x.pt")


def test_numbers_of_one_hash_are_keys_like_others(tmp_path: Path) -> None:
    tree = {i * ((1 << 61) - 1): torch.zeros(1) for i in range(1, 3000)} | {"sae": saelens()}
    torch.save(tree, tmp_path / "x.pt")
    assert reads_as(load(tmp_path / "x.pt"), DEC, ENC)


@pytest.mark.parametrize("hidden", [torch_bytes(saelens()), b"\0" * 64, b"\0" * 16], ids=["an archive", "zeros", "few"])
@pytest.mark.parametrize("last", [True, False], ids=["before the directory", "between members"])
def test_bytes_between_the_members_of_an_archive(hidden: bytes, last: bool, tmp_path: Path) -> None:
    """Insert bytes before the directory or the second of two members, and adjust the offsets."""
    raw = npz_bytes(W_dec=DEC, b_enc=B_N)
    directory, end = raw.index(b"PK\x01\x02"), raw.rindex(b"PK\x05\x06")
    second = raw.index(b"PK\x01\x02", directory + 4)
    at = directory if last else raw.index(b"PK\x03\x04", 4)
    changed = bytearray(raw)
    changed[end + 16 : end + 20] = struct.pack("<I", directory + len(hidden))
    if not last:
        changed[second + 42 : second + 46] = struct.pack("<I", at + len(hidden))
    (tmp_path / "x.npz").write_bytes(changed[:at] + hidden + changed[at:])
    with pytest.raises(SourceError, match=rf"has {len(hidden):,} bytes between the members"):
        load(tmp_path / "x.npz")
    buffer = io.BytesIO()
    with zipfile.ZipFile(Unseekable(buffer), "w") as z:  # The sizes follow the data of each member.
        for name, array in {"W_dec": DEC, "b_enc": B_N}.items():
            z.writestr(f"{name}.npy", npy_bytes(array))
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    assert reads_as(load(tmp_path / "x.npz"), DEC, None)


class Unseekable:
    """Pipe that can be written to but not searched."""

    def __init__(self, out: io.BytesIO) -> None:
        self.write, self.flush = out.write, out.flush
