"""Tests of broken and malicious files: each gives one sentence, and nothing is executed or allocated."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CHECKPOINTS

from sae_geometry.sources import SourceError, load

SAFE = CHECKPOINTS / "saelens_topk" / "sae_weights.safetensors"
TORCH = CHECKPOINTS / "dl_autoencoder" / "ae.pt"
NPZ = CHECKPOINTS / "gemma_scope_npz" / "layer_12" / "width_16k" / "average_l0_82" / "params.npz"


def refused(path: Path, sentence: str, seconds: float = 3.0) -> None:
    start = time.process_time()
    with pytest.raises(SourceError, match=sentence) as caught:
        load(path)
    assert time.process_time() - start < seconds
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page, not weights"),
        (b"\n  <html><body>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a git-lfs pointer.*git lfs pull"),
        (b'{"a": 1}', "is JSON text"),
        (b"\x1f\x8b\x08\0\0\0", "is a compressed archive"),
        (b"\x80\x02]q\0.", "is a bare pickle.*refused"),
        (pickle.dumps({"a": 1}, 4), "is a bare pickle.*refused"),
        (b"\0" * 100, "is not a file of tensors"),
        (b"hello, this is text", "is not safetensors"),
        (b"PK\x03\x04 but no zip", "truncated zip archive"),
        (b"\x93NUMPY\x01\0", "damaged .npy header"),
    ],
)
def test_what_a_file_is_when_it_is_not_weights(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    refused(path, sentence)


@pytest.mark.parametrize("source", [SAFE, TORCH, NPZ], ids=lambda p: p.suffix)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated(source: Path, share: float, tmp_path: Path) -> None:
    path = tmp_path / source.name
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "truncated|not safetensors|its tensors|damaged")


@pytest.mark.parametrize("source", [TORCH, NPZ], ids=lambda p: p.suffix)
def test_a_flipped_byte_is_found_by_the_checksum(source: Path, tmp_path: Path) -> None:
    content = bytearray(source.read_bytes())
    largest = max(zipfile.ZipFile(source).infolist(), key=lambda i: i.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 1
    path = tmp_path / source.name
    path.write_bytes(content)
    refused(path, "checksum|damaged")


# --- safetensors ---------------------------------------------------------------------------------------------------


def safetensors(path: Path, header: Any, body: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def entry(shape: list[int], at: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": at}


@pytest.mark.parametrize(
    ("header", "n_bytes", "sentence"),
    [
        ({"W_dec": entry([4, 2], [0, 32]), "b": entry([8], [16, 48])}, 48, "overlap"),
        ({"W_dec": entry([4, 2], [0, 32]), "b": entry([8], [40, 72])}, 72, "leave a gap"),
        ({"W_dec": entry([4, 2], [0, 32])}, 40, "do not belong to any tensor"),
        ({"W_dec": entry([4, 2], [0, 32])}, 30, "is truncated"),
        ({"W_dec": entry([4, 3], [0, 32])}, 32, "claims 32 bytes but its shape and type need 48"),
        ({"W_dec": entry([1 << 40, 1 << 40], [0, 32])}, 32, "impossible shape"),
        ({"W_dec": entry([-4, 2], [0, 32])}, 32, "impossible shape"),
        ({"W_dec": entry([True, 2], [0, 32])}, 32, "impossible shape"),
        ({"W_dec": entry([1] * 200, [0, 4])}, 4, "impossible shape"),
        ({"W_dec": entry([4, 2], [32, 0])}, 32, "claims -32 bytes"),
        ({"W_dec": entry([4, 2], [0, 32], "F31")}, 32, "of type F31, which torch does not have"),
        ({"W_dec": {"shape": [4]}}, 32, "lacks dtype, shape or data_offsets"),
        ({"W_dec": 3}, 32, "lacks dtype, shape or data_offsets"),
        ({"W_dec": entry([4, 2], [0])}, 32, "not two byte positions"),
        ({"__metadata__": {"a": 1}, "W_dec": entry([4, 2], [0, 32])}, 32, "not a table of strings"),
        (b'{"a": 1, "a": 2}', 0, "names a tensor twice"),
        (b"{" + b"[" * 100_000, 0, "not JSON"),
        (b'{"a": \xff}', 0, "not JSON"),
    ],
)
def test_safetensors_headers(header: Any, n_bytes: int, sentence: str, tmp_path: Path) -> None:
    refused(safetensors(tmp_path / "x.safetensors", header, b"\0" * n_bytes), sentence)


def test_a_safetensors_header_of_60_mb(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as f:
        f.write(struct.pack("<Q", 60 << 20) + b"{")
        f.truncate(61 << 20)
    refused(path, "claims 62,914,560 bytes .* more than any checkpoint needs", 0.5)


# --- torch pickles -------------------------------------------------------------------------------------------------


class Runs:
    """Object whose pickle would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def torch_zip(path: Path, raw: bytes, members: dict[str, bytes] | None = None, compress: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression=compress) as z:
        z.writestr("archive/data.pkl", raw)
        z.writestr("archive/byteorder", "little")
        for name, content in (members or {}).items():
            z.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_would_run_something_is_refused_by_name(protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "was-run"
    raw = pickle.dumps({"W_dec": Runs(witness)}, protocol)
    refused(torch_zip(tmp_path / "x.pt", raw), r"wants to run 'posix.system'.*nothing was run")
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.bytearray", "torch.load", "collections.Counter", "torch._utils._x"]
)
def test_other_names_are_refused_too(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    raw = b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n)R."
    refused(torch_zip(tmp_path / "x.pt", raw), f"wants to run '{name}'")


def stored(
    key: str = "0", n: int = 8, shape: tuple[int, ...] = (4, 2), stride: tuple[int, ...] = (2, 1), at: int = 0
) -> bytes:
    """Return a pickle of one float32 tensor, as torch.save writes it, with the given numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", n) if obj == "S" else None

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, ("S", at, shape, stride, False, {})

    out = io.BytesIO()
    Pickler(out, 2).dump({"W_dec": Tensor()})
    return out.getvalue()


FLOATS = np.arange(1, 9, dtype=np.float32).tobytes()


def test_our_own_writing_of_a_pickle_is_read(tmp_path: Path) -> None:
    d = load(torch_zip(tmp_path / "x.pt", stored() and stored(shape=(4, 2)), {"data/0": FLOATS}), latent_axis=0)
    assert d.n_latents == 4


@pytest.mark.parametrize(
    ("raw", "members", "sentence"),
    [
        (stored(n=1 << 40), {"data/0": FLOATS[:4]}, "more values than the archive contains"),
        (stored(shape=(100, 2), stride=(0, 1)), {"data/0": FLOATS}, "repeats its values"),
        (stored(shape=(1 << 30, 2), stride=(0, 1)), {"data/0": FLOATS}, "impossible shape"),
        (stored(shape=(1 << 40, 1 << 40)), {"data/0": FLOATS}, "impossible shape"),
        (stored(at=5), {"data/0": FLOATS}, "more values than the archive contains"),
        (stored(shape=(4, 2), stride=(100, 1)), {"data/0": FLOATS}, "more values than the archive contains"),
        (stored(key="../../../etc/passwd"), {"data/0": FLOATS}, "values are missing"),
        (stored(), {}, "values are missing"),
        (stored(), {"data/0": FLOATS, "../x/data.pkl": b""}, "holds no|numbers|no data.pkl|no known|W_dec"),
    ],
)
def test_tensors_that_claim_too_much(raw: bytes, members: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "x.pt", raw, members)
    if sentence.startswith("holds no|"):
        assert load(path, latent_axis=0).n_latents == 4, "an unused member should not be read"
    else:
        refused(path, sentence)


def laughs(levels: int) -> bytes:
    """Return a pickle of nested dictionaries, each holding the one below twice."""
    body = b"\x80\x02}q\0"
    for i in range(1, levels):
        body += b"}q" + bytes([i]) + b"(X\x01\0\0\0ah" + bytes([i - 1]) + b"X\x01\0\0\0bh" + bytes([i - 1]) + b"u"
    return body + b"."


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (laughs(60), "more than 50,000 values"),
        (b"\x80\x02" + b"}X\x01\0\0\0a" * 100 + b"}" + b"s" * 100 + b".", "nested more than 64 levels deep"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "damaged"),
        (
            b"\x80\x02" + b"(" * 100_000 + b"t" * 99_999 + b".",
            "damaged|holds no decoder|nested more than 64 levels deep",
        ),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged|LONG4"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged|BYTEARRAY8"),
        (b"\x80\x02}.", "holds no decoder"),
        (b"\x80\x02", "damaged"),
        (b".", "damaged"),
        (b"\x80\x02K\x01.", "holds no decoder"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"I1\n.", "uses INT"),
    ],
)
def test_pickles_built_to_exhaust_or_confuse(raw: bytes, sentence: str, tmp_path: Path) -> None:
    refused(torch_zip(tmp_path / "x.pt", raw), sentence)


def test_a_pickle_of_too_many_steps(tmp_path: Path) -> None:
    refused(torch_zip(tmp_path / "x.pt", b"\x80\x02" + b"N" * 500_100 + b"."), "more than 500,000 opcodes")


def test_a_pickle_too_long_to_parse(tmp_path: Path) -> None:
    raw = b"\x80\x02" + b"N" * (9 << 20) + b"."
    refused(torch_zip(tmp_path / "x.pt", raw), "unpacks to .* above the limit")
    refused(torch_zip(tmp_path / "x.pt", raw, compress=zipfile.ZIP_DEFLATED), "pickle is compressed")


def test_compressed_tensors_in_a_torch_file(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "x.pt", stored(), {"data/0": FLOATS}, compress=zipfile.ZIP_DEFLATED)
    refused(path, "is compressed, which torch.save never does")


def test_a_big_endian_machine(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "x.pt", stored())
    path.write_bytes(path.read_bytes().replace(b"little", b"bigbig"))
    refused(path, "big-endian|checksum|damaged")


# --- zip and npz ---------------------------------------------------------------------------------------------------


def npz(path: Path, arrays: dict[str, bytes], compress: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression=compress) as z:
        for name, content in arrays.items():
            z.writestr(f"{name}.npy", content)
    return path


def npy(shape: str, descr: str = "'<f4'", body: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize("name", ["x.npz", "x.pt"])
def test_a_zip_of_nothing(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w"):
        pass
    with pytest.raises(SourceError):
        load(tmp_path / name)


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as z, z.open("W_dec.npy", "w") as f:
        f.write(npy("(8388608, 8)"))
        for _ in range(256):
            f.write(b"\0" * (1 << 20))
    assert path.stat().st_size < 400_000
    refused(path, "zip bomb; refused", 0.5)


def test_a_zip_directory_of_millions(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"W_dec": npy("(2, 2)", body=b"\0" * 16)})
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x05\x06")
    raw[at + 12 : at + 16] = struct.pack("<I", 1 << 30)
    path.write_bytes(raw)
    refused(path, "damaged or truncated zip archive", 0.5)


def test_a_member_named_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("W_dec.npy", npy("(2, 3)", body=b"\1" * 24))
        with pytest.warns(UserWarning, match="Duplicate name"):
            z.writestr("W_dec.npy", npy("(2, 3)", body=b"\2" * 24))
    refused(path, "lists a member twice")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy("(2, 2)", "'|O'", pickle.dumps(1)), "contains Python objects.*refused"),
        (npy("(2, 2)", "'>f4'", b"\0" * 16), "not plain little-endian"),
        (npy("(2, 2)", "[('a', '<f4')]", b"\0" * 16), "not plain little-endian"),
        (npy("(2, 2)", "'<c8'", b"\0" * 32), "not plain little-endian"),
        (npy("(2, 2)", "('<f4', (2,))", b"\0" * 16), "not plain little-endian"),
        (npy("(1099511627776, 1099511627776)"), "impossible shape"),
        (npy("(-2, 2)"), "impossible shape|damaged"),
        (npy("(2, 3)", body=b"\0" * 16), "does not fit its|truncated"),
        (npy("__import__('os')"), "damaged .npy header"),
        (npy("(2, 2)", "__import__('os').getcwd()"), "damaged .npy header"),
        (b"\x93NUMPY\x07\0" + b"\0" * 80, "damaged .npy header"),
    ],
)
def test_arrays(content: bytes, sentence: str, tmp_path: Path) -> None:
    refused(npz(tmp_path / "x.npz", {"W_dec": content}), sentence)
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy", sentence)


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"W_dec": npy("(2, 2)", body=b"\0" * 16)}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    refused(path, "is encrypted; refused")
