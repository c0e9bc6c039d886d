"""Tests of unusual containers: streams, files with a header before them, types that torch lacks, and equal names."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_wrapping import reads_as, saelens, tensor
from written import B_N, DEC, ENC, D, N, torch_bytes

from sae_geometry.sources import LayoutError, SourceError, as_dictionary, inspect, load


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
    with pytest.raises(ValueError, match=r"two keys of a mapping are equal as strings|two values named"):
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
