"""Tests of small files that would take much memory or time: each gives one sentence, or a dictionary, within limits."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from limited import TooLongError, limited
from test_hostile import FLOATS, entry, npy, npz, safetensors, stored, torch_zip

from sae_geometry.sources import SourceError, load
from sae_geometry.sources.files.bytes import FileBytes


def refused(path: Path, sentence: str, megabytes: int = 400) -> None:
    with limited(megabytes), pytest.raises(SourceError, match=sentence) as caught:
        load(path, latent_axis=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_the_limits_bite() -> None:
    with pytest.raises(MemoryError), limited(megabytes=50):
        bytearray(200 << 20)
    with pytest.raises(TooLongError), limited(seconds=0.1):
        sum(1 for _ in range(10**12))  # Signals are handled between bytecodes, so a single call into C would not stop.


# --- pickles -------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def nested_names(levels: int, length: int, leaves: int) -> bytes:
    """Return a pickle of nested dictionaries with long names and many leaves at the bottom."""
    body = b"\x80\x02" + (b"}" + text("k" * length)) * levels + b"}("
    body += b"".join(text(f"{i:x}") + b"N" for i in range(leaves))
    return body + b"u" + b"s" * levels + b"."


def names_of_one_hash(n: int) -> bytes:
    """Return a pickle of a dictionary whose integer keys have the same hash."""
    keys = (i * ((1 << 61) - 1) for i in range(n))
    pairs = b"".join(b"\x8a" + bytes([len(r)]) + r + b"N" for k in keys if (r := k.to_bytes(14, "little")))
    return b"\x80\x02}(" + pairs + b"u."


def nested_tuples(levels: int, of: bytes) -> bytes:
    """Return a pickle that passes tuples, each holding the previous one twice, to a function that may format them."""
    body = b"\x80\x02)q\0" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
                                      for i in range(levels))  # fmt: skip
    return body + of + b"h" + bytes([levels]) + b"\x85R."


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (nested_names(1, 1 << 20, 20_000), "names of the values in it exceed"),
        (nested_names(30, 60_000, 20_000), "names of the values in it exceed"),
        (nested_names(60, 1_000, 40_000), "names of the values in it exceed"),
        (nested_names(1, 10, 60_000), "more than 50,000 values"),
        (names_of_one_hash(45_000), "holds no decoder"),
        (nested_tuples(40, b"ctorch\ndevice\n"), "damaged"),
        (nested_tuples(40, b"ctorch\nSize\n"), "damaged"),
        (nested_tuples(40, b"ctorch._utils\n_rebuild_parameter\n"), "damaged"),
        (b"\x80\x02" + b"}" * 200_000 + b".", "holds no decoder|damaged"),
        (b"\x80\x02" + b"(" * 200_000 + b".", "damaged"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 64 levels deep"),
        (b"\x80\x02N" + b"\x85" * 200_000 + b".", "nested more than 64 levels deep"),
        (b"\x80\x02(" + b"]q\0h\0" * 50_000 + b"l.", "uses LIST|damaged"),
        (b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", i << 21) for i in range(2000)) + b".", "damaged"),
        (b"\x80\x02L" + b"9" * 4_000_000 + b"L\n.", "damaged"),
        (b"\x80\x02\x8b" + struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000 + b".", "LONG4|damaged"),
    ],
)  # fmt: skip
def test_a_pickle_costs_no_more_than_its_length(raw: bytes, sentence: str, tmp_path: Path) -> None:
    refused(torch_zip(tmp_path / "x.pt", raw), sentence)


def test_a_compressed_pickle_is_not_unpacked(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "x.pt", nested_names(30, 60_000, 20_000), compress=zipfile.ZIP_DEFLATED)
    refused(path, "pickle is compressed")


@pytest.mark.parametrize("step", [1 << 80, 1 << 63, 1 << 62, 1 << 40])
@pytest.mark.parametrize(
    ("shape", "place"), [((1, 8), 0), ((8, 1), 1), ((0, 8), 0), ((4, 2), 0), ((2, 4), 1), ((1, 1), 0)]
)
def test_strides_that_no_number_holds(step: int, shape: tuple[int, int], place: int, tmp_path: Path) -> None:
    steps = (step, 1) if place == 0 else (1, step)
    path = torch_zip(tmp_path / "x.pt", stored(shape=shape, stride=steps), {"data/0": FLOATS})
    if shape[place] == 1:
        with limited():
            assert load(path, latent_axis=0).directions.shape == shape
    else:
        refused(path, "more values than|holds no decoder|is empty|impossible|damaged")


HUGE = 1 << 47
SHAPES = [
    [0, HUGE],
    [HUGE, 0],
    [0, HUGE, 4],
    [HUGE, 0, 4],
    [4, HUGE, 0],
    [0] * 8,
    [HUGE, 0, HUGE],
    [0, 1 << 62],
    [0, 10**30],
]


@pytest.mark.parametrize(
    "key", ["W_dec", "W_D", "W_D.0", "W_dec_0", "w_dec", "decoder.weight", "D", "rows", "a.decoder.weight"]
)
def test_shapes_without_numbers(key: str, tmp_path: Path) -> None:
    for shape in SHAPES:
        path = safetensors(tmp_path / "x.safetensors", {key: entry(shape, [0, 0])})
        refused(path, "impossible shape|no known|no decoder")


@pytest.mark.parametrize("number", ["1000000000", "9" * 30, "9" * 5000, "٣" * 9])
@pytest.mark.parametrize("key", ["W_D.{}", "W_dec_{}"])
def test_numbers_in_names(key: str, number: str, tmp_path: Path) -> None:
    shape = [2, 2, 2]
    path = safetensors(tmp_path / "x.safetensors", {key.format(number): entry(shape, [0, 32])}, b"\1" * 32)
    refused(path, "no known|no decoder|tensor name")


def sparse(path: Path, header: dict[str, object], n_bytes: int) -> Path:
    """Write a safetensors file with `n_bytes` of tensors, most of it a hole that takes no disk space."""
    raw = json.dumps(header).encode()
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw)
        f.truncate(8 + len(raw) + n_bytes)
    return path


@pytest.mark.parametrize("key", ["W_dec", "w_dec", "W_D", "decoder.weight", "W_dec_0"])
def test_outputs_without_number(key: str, tmp_path: Path) -> None:
    n = 1 << 28
    for shape in ([1, n, 1], [n, 1, 1], [1, 1, n]):
        path = sparse(tmp_path / "x.safetensors", {key: entry(shape, [0, 4 * n])}, 4 * n)
        with limited(), pytest.raises((SourceError, ValueError, MemoryError)):
            load(path)


def test_many_keys_with_many_outputs(tmp_path: Path) -> None:
    n, keys = 10_000, 1000
    header = {f"W_dec_{i}": entry([1, n, 1], [4 * n * i, 4 * n * (i + 1)]) for i in range(keys)}
    refused(sparse(tmp_path / "x.safetensors", header, 4 * n * keys), "outputs, more than")


def test_a_header_of_many_tensors(tmp_path: Path) -> None:
    header = {f"{i}": entry([0], [0, 0]) for i in range(100_000)}
    refused(safetensors(tmp_path / "x.safetensors", header), "more than 50,000 tensors")


def test_names_in_many_parts(tmp_path: Path) -> None:
    parts = ".".join("abcdefgh"[i % 8] for i in range(200))
    header = {f"{parts}.{i}": entry([2, 2, 2], [32 * i, 32 * i + 32]) for i in range(6_000)}
    refused(sparse(tmp_path / "x.safetensors", header, 32 * 6_000), "holds no decoder")


@pytest.mark.parametrize("name", ["cfg.json", "x.safetensors"])
def test_a_configuration_of_many_names_is_named_and_not_searched(name: str, tmp_path: Path) -> None:
    many = {f"k{i}": "{}" for i in range(20_000)}
    n = 4 * 3 * 5
    header = {"W_dec": entry([3, 5], [0, n])} | ({} if name == "cfg.json" else {"__metadata__": many})
    raw = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + np.eye(3, 5, dtype="f4").tobytes())
    if name == "cfg.json":
        (tmp_path / name).write_text(json.dumps(many))
    with limited(), warnings.catch_warnings(action="ignore"):
        d = load(tmp_path / "x.safetensors")
    assert any("more than 5,000 names and was not read" in note for note in d.notes)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"__metadata__": {"a": ' + b"9" * 100_000 + b"}}",
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 4000 + b"]}}",
        b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, NaN]}}',
        b'{"a": ' + b'{"a": ' * 500_000 + b"1" + b"}" * 500_001,
        b'{"a": [' + b"[]," * 500_000 + b"[]]}",
        b'{"a' + b"a" * 1000 + b'": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"a\\n\\u202e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
    ],
)  # fmt: skip
def test_headers_of_nonsense(raw: bytes, tmp_path: Path) -> None:
    refused(safetensors(tmp_path / "x.safetensors", raw), "x.safetensors")


# --- zip -----------------------------------------------------------------------------------------------------------


def directory(path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """Change the first entry of a zip directory, given its offset."""
    raw = bytearray(path.read_bytes())
    change(raw, raw.find(b"PK\x01\x02"))
    path.write_bytes(raw)
    return path


def bomb(path: Path, megabytes: int) -> Path:
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as z, z.open("W_dec.npy", "w") as f:
        f.write(npy(f"({megabytes}, 262144)"))
        for _ in range(megabytes):
            f.write(b"\0" * (1 << 20))
    return path


def test_an_entry_that_overstates_what_it_is_packed_to(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.npz", 200)

    def overstate(raw: bytearray, at: int) -> None:
        raw[at + 20 : at + 24] = struct.pack("<I", 100 << 20)

    refused(directory(path, overstate), "beyond the end of the file", megabytes=100)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.npz", 15)
    raw = bytearray(path.read_bytes())
    at, end = raw.find(b"PK\x01\x02"), raw.rfind(b"PK\x05\x06")
    one = raw[at:end]
    many = b"".join(bytes(one).replace(b"W_dec", b"%05d" % i) for i in range(5000))
    tail = raw[end:]
    tail[8:20] = struct.pack("<HHII", 5000, 5000, len(many), at)
    path.write_bytes(raw[:at] + many + tail)
    refused(path, "shares its bytes|not at the position in the zip directory")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93, 12345])
def test_other_ways_of_packing(method: int, tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"W_dec": npy("(2, 2)", body=b"\1" * 16)}, zipfile.ZIP_STORED)
    refused(directory(path, lambda raw, at: raw.__setitem__(slice(at + 10, at + 12), struct.pack("<H", method))),
            "compressed with method")  # fmt: skip


def big_directory(path: Path, entries: int, zip64: bool) -> Path:
    """Write an archive whose directory is longer than the rest; a zip64 record states that it is short."""
    name = b"W_dec.npy"
    one = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    body = one * entries
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, entries & 0xFFFF, entries & 0xFFFF, len(body), 4, 0)
    if zip64:
        true = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, len(body), 4)
        lie = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, 4)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 4 + len(body), 1)
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        body += lie + true + locator
    path.write_bytes(b"PK\x03\x04" + body + end)
    return path


@pytest.mark.parametrize("zip64", [False, True])
def test_a_directory_larger_than_any(zip64: bool, tmp_path: Path) -> None:
    path = big_directory(tmp_path / "x.npz", 1_700_000, zip64)
    assert path.stat().st_size > 90_000_000
    refused(path, "zip directory claims", megabytes=100)


@pytest.mark.parametrize(
    "shape",
    [
        "(0, 140737488355328)",
        "(140737488355328, 0)",
        "(True, 4)",
        "(4.0, 1)",
        "(2, 2)" + "\n" * 60_000,
        "(" * 5000 + ")" * 5000,
        "(" + "-" * 9000 + "1,)",
        "(" + "9" * 9000 + ",)",
        "({" * 300 + "}," * 300 + ")",
        "(1" + " if 1 else 1" * 700 + ",)",
    ],
)
@pytest.mark.parametrize(
    "descr", ["'<f4'", "'(100000,100000)f4'", "'f4,' * 1000", "[('a', '(99999,99999)f8')]", "'V99999999999'"]
)
def test_npy_headers(shape: str, descr: str, tmp_path: Path) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    if len(header) < 65_000:
        raw = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"\0" * 16
        (tmp_path / "x.npy").write_bytes(raw)
        refused(tmp_path / "x.npy", "x.npy|is empty|impossible")
        refused(npz(tmp_path / "x.npz", {"W_dec": raw}), "x.npz|is empty|impossible")


# --- files that change while they are read -------------------------------------------------------------------------


def test_a_few_bytes_of_a_file_larger_than_memory(tmp_path: Path) -> None:
    n = 40 << 30
    header = {"W_dec": entry([64, 32], [0, 8192]), "more": entry([n // 4], [8192, 8192 + n])}
    path = sparse(tmp_path / "x.safetensors", header, 8192 + n)
    with path.open("r+b") as f:
        f.seek(path.stat().st_size - 8192 - n)
        f.write(np.ones((64, 32), dtype=np.float32).tobytes())
    with limited(megabytes=100):
        assert load(path, latent_axis=0).n_latents == 64


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_output_of_a_tensor_larger_than_memory(axis: int, tmp_path: Path) -> None:
    shape = [8, 16, 32]
    shape[axis], key = {0: (4000, "W_D"), 1: (4000, "w_dec"), 2: (1 << 20, "w_dec")}[axis]
    n = 4 * int(np.prod(shape))
    path = sparse(tmp_path / "x.safetensors", {key: entry(shape, [0, n])}, n)
    from sae_geometry.sources.files.tensor_file import Entry, read_stored

    file = FileBytes(path)
    start = path.stat().st_size - n
    whole = Entry(tuple(shape), torch.float32)
    rest = tuple(s for i, s in enumerate(shape) if i != axis)
    with path.open("r+b") as f:  # This marks index 1 along the axis.
        inner = 4 * int(np.prod(shape[axis + 1 :]))
        for outer in range(int(np.prod(shape[:axis]))):
            f.seek(start + (outer * shape[axis] + 1) * inner)
            f.write(np.ones(inner // 4, dtype=np.float32).tobytes())
    with limited(megabytes=100):
        part = read_stored(FileBytes(path), start, whole, (axis, 1))
        assert part.shape == rest
        assert bool((part == 1).all())
        assert not bool(read_stored(FileBytes(path), start, whole, (axis, 2)).any())
    with pytest.raises(SourceError, match="was changed"):
        read_stored(file, start, whole, (axis, 1))


def test_a_pickle_of_a_real_checkpoint_takes_few_steps() -> None:
    out = io.BytesIO()
    pickle.dump({f"layers.{i}.weight": i for i in range(5000)}, out, 2)
    assert len(out.getvalue()) < 1_000_000


@pytest.mark.parametrize("layer", ["²", "٣", "9" * 5000, "1" * 30])
def test_digits_that_are_not_a_layer(layer: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3, 5, dtype=np.float32))
    for said in (
        {"hook_layer": layer},
        {"layer": layer, "submodule_name": "resid_post"},
        {"hook_name": f"blocks.{layer}.hook_mlp_out"},
    ):
        (tmp_path / "cfg.json").write_text(json.dumps(said))
        assert load(tmp_path / "x.npy", latent_axis=0).n_latents == 3
