"""Checkpoint files with random errors, by the part that is wrong."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_junk import NAMES, NUMBERS, WORDS, changed, junk, mangled

from sae_geometry.sources import load


def originals() -> dict[str, list[bytes]]:
    """Return small valid files, by container."""
    w = {"W_dec": torch.randn(8, 4), "W_enc": torch.randn(4, 8), "b_enc": torch.zeros(8), "b_dec": torch.zeros(4)}
    nested = {"state_dict": w, "config": {"d_sae": 8, "seed": 0}, "ids": [1, 2, 3], "step": 10}
    found: dict[str, list[bytes]] = {"pt": [], "npz": [], "npy": [], "safetensors": []}
    from safetensors.torch import save

    found["safetensors"] = [save(w), save({"W_D": torch.randn(3, 8, 4), "W_E": torch.randn(3, 4, 8)}, {"a": "b"})]
    for tensors in (w, nested, {"a-b.decoder.weight": torch.randn(4, 8).bfloat16()}):
        torch.save(tensors, out := io.BytesIO())
        found["pt"].append(out.getvalue())
    for write in (np.savez, np.savez_compressed):
        write(out := io.BytesIO(), **{k: v.numpy() for k, v in w.items()})
        found["npz"].append(out.getvalue())
    for array in (np.eye(8, 4), np.asfortranarray(np.ones((8, 4), np.float16))):
        np.save(out := io.BytesIO(), array)
        found["npy"].append(out.getvalue())
    return found


ORIGINALS = originals()


def opened(path: Path, raw: bytes, rng: random.Random) -> object:
    """Load a file with random options."""
    path.write_bytes(raw)
    return load(path, "all", latent_axis=rng.choice((None, None, 0, 1)), drop_bad=rng.random() < 0.5)


def bytes_family(rng: random.Random, folder: Path) -> object:
    """Mangle a valid file."""
    raw = rng.choice(ORIGINALS[rng.choice(list(ORIGINALS))])
    return opened(folder / "mangled.pt", mangled(rng, raw), rng)


def safetensors_family(rng: random.Random, folder: Path) -> object:
    """Write a header of any shapes, offsets and types, over bytes that may fit it."""
    header: dict[str, Any] = {}
    at = 0
    for _ in range(rng.randrange(1, 6)):
        shape: Any = [rng.choice((1, 2, 3, 4, 8)) for _ in range(rng.choice((1, 2, 2, 2, 3, 3, 4)))]
        if rng.random() < 0.4:
            shape[rng.randrange(len(shape))] = rng.choice(NUMBERS)
            shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2))
        dtype = rng.choice(("F32", "F32", "F32", "BF16", "F64", "U8", "I64", "BOOL", "F8_E4M3", "C64", "F4", 3))
        n = int(np.prod([min(abs(int(s)), 1 << 10) for s in shape])) * {"F64": 8, "I64": 8, "BF16": 2}.get(
            str(dtype), 4
        )
        spec: Any = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        header[rng.choice(NAMES if rng.random() < 0.6 else NAMES[:13])] = (
            changed(rng, spec) if rng.random() < 0.3 else spec
        )
        at += n
    if rng.random() < 0.2:
        header["__metadata__"] = junk(rng)
    raw = json.dumps(header).encode()
    if rng.random() < 0.1:
        raw = raw[:-1] + b"," + raw[1:]  # This writes every name twice.
    length = len(raw) if rng.random() < 0.9 else rng.choice(NUMBERS) % (1 << 64)
    body = rng.randbytes(min(at, 1 << 16)) if rng.random() < 0.5 else b"\0" * min(at, 1 << 20)
    return opened(folder / "x.safetensors", struct.pack("<Q", length % (1 << 64)) + raw + body, rng)


OPCODES = [
    b"(",
    b")",
    b"]",
    b"}",
    b"N",
    b"\x88",
    b"\x89",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"u",
    b"s",
    b"a",
    b"e",
    b"0",
    b"2",
    b"R",
    b"b",
    b"Q",
    b"\x94",
    b"l",
    b"d",
    b"\x93",
    b"\x81",
    b"1",
]
GLOBALS = (
    b"collections\nOrderedDict",
    b"torch._utils\n_rebuild_tensor_v2",
    b"torch._utils\n_rebuild_tensor_v3",
    b"torch\nSize",
    b"torch\nFloatStorage",
    b"torch\ndevice",
    b"torch._utils\n_rebuild_parameter",
    b"torch\nfloat32",
    b"torch\nqint8",
    b"torch\ncomplex64",
    b"torch.storage\nUntypedStorage",
    b"os\nsystem",
    b"builtins\neval",
    b"torch\n_dynamo",
    b"numpy\nndarray",
)


def pickle_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def opcodes(rng: random.Random, n: int) -> bytes:
    """Return random pickle opcodes."""
    out = b"\x80\x02"
    for _ in range(n):
        match rng.randrange(6):
            case 0:
                out += pickle_text(rng.choice(NAMES + WORDS))
            case 1:
                out += b"h" + bytes([rng.randrange(8)]) + b"q" + bytes([rng.randrange(8)])
            case 2:
                raw = abs(rng.choice(NUMBERS)).to_bytes(200, "little")
                out += rng.choice((b"K\1", b"J\xff\xff\xff\xff", b"\x8a" + bytes([len(raw)]) + raw, b"M\1\1"))
            case 3:
                out += b"c" + rng.choice(GLOBALS) + b"\n"
            case _:
                out += rng.choice(OPCODES)
    return out + b"."


def tensor_pickle(rng: random.Random) -> bytes:
    """Pickle nested dictionaries of tensors with random sizes, strides and offsets."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", obj.n) if isinstance(obj, Storage) else None

    wild = rng.choice((4, 100))

    class Storage:
        n = rng.choice((32, 32, *NUMBERS))

    class Tensor:
        def __reduce__(self) -> Any:
            def any_of(*usual: int) -> int:
                return rng.choice((*usual * wild, *NUMBERS))

            axes = rng.choice((1, 2, 2, 2, 3, 9))
            shape = tuple(any_of(1, 2, 4, 8) for _ in range(axes))
            steps = tuple(any_of(1, 1, 2, 8) for _ in range(axes if rng.random() < 0.9 else axes + 1))
            return torch._utils._rebuild_tensor_v2, (Storage(), any_of(0, 0, 1), shape, steps, False, {})

    def table(depth: int) -> Any:
        if depth > 3 or rng.random() < 0.6:
            return Tensor()
        return {rng.choice((*NAMES, 0, 1, True, 1 << 70)): table(depth + 1) for _ in range(rng.randrange(1, 4))}

    out = io.BytesIO()
    Pickler(out, 2).dump({rng.choice((*NAMES, *NAMES[:2] * 20)): table(0) for _ in range(rng.randrange(1, 5))})
    return out.getvalue()


def exhausting_pickle(rng: random.Random) -> bytes:
    """Return a short but costly pickle: long names in nested dictionaries, repeated references, or colliding keys."""
    n = rng.choice((100, 3000, 30_000))
    match rng.randrange(5):
        case 0:
            depth = rng.randrange(1, 70)
            head = (b"}" + pickle_text("k" * rng.choice((1, 1000, 50_000)))) * depth
            return (
                b"\x80\x02"
                + head
                + b"}("
                + b"".join(pickle_text(f"{i}") + b"N" for i in range(n))
                + b"u"
                + b"s" * depth
                + b"."
            )
        case 1:
            step = rng.choice(((1 << 61) - 1, 1 << 32, 1 << 20, 1))
            keys = (struct.pack("<Q", i * step % (1 << 63)) for i in range(n))
            return b"\x80\x02}(" + b"".join(b"\x8a\x08" + k + b"N" for k in keys) + b"u."
        case 2:
            levels = rng.randrange(2, 200)
            opener, closer = rng.choice(((b"}", b""), (b"]", b""), (b")", b"")))
            body = b"".join(
                b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" + closer + b"q" + bytes([i + 1]) for i in range(levels)
            )
            call = b"c" + rng.choice(GLOBALS) + b"\n" + b"h" + bytes([levels]) + rng.choice((b"\x85", b"")) + b"R"
            return b"\x80\x02" + opener + b"q\0" + body + rng.choice((b"", call)) + b"."
        case 3:
            return b"\x80\x02" + rng.choice(OPCODES) * n + rng.choice(OPCODES) * n + b"."
        case _:
            levels = rng.randrange(2, 60)
            body = b"".join(
                b"}q"
                + bytes([i])
                + b"("
                + pickle_text("a" * 50)
                + b"h"
                + bytes([i - 1])
                + pickle_text("b")
                + b"h"
                + bytes([i - 1])
                + b"u"
                for i in range(1, levels)
            )
            return b"\x80\x02}q\0" + body + b"."


def pickles_family(rng: random.Random, folder: Path) -> object:
    """Write a torch archive with valid checksums and any pickle."""
    raw = rng.choice(
        (
            lambda: opcodes(rng, rng.choice((5, 30, 300))),
            lambda: tensor_pickle(rng),
            lambda: exhausting_pickle(rng),
            lambda: mangled(rng, tensor_pickle(rng)),
        )
    )()
    packing = rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(folder / "made.pt", "w", compression=packing) as z:
        z.writestr("a/data.pkl", raw)
        z.writestr("a/data/0", rng.randbytes(rng.choice((0, 128, 4096))))
    return opened(folder / "x.pt", (folder / "made.pt").read_bytes(), rng)


def zips_family(rng: random.Random, folder: Path) -> object:
    """Write an archive with false directory entries and local headers, thousands of entries, or shared bytes."""
    raw = bytearray(rng.choice(ORIGINALS["npz"] + ORIGINALS["pt"]))
    places = [i for i in range(len(raw) - 4) if raw[i : i + 2] == b"PK"]
    for _ in range(rng.randrange(1, 4)):
        at, field = (
            rng.choice(places),
            rng.choice((4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 38, 42)),
        )
        size = rng.choice((2, 4))
        value = (rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(1 << 32)) % (1 << (8 * size))
        raw[at + field : at + field + size] = value.to_bytes(size, "little")
    end = raw.rfind(b"PK\x05\x06")
    if rng.random() < 0.3 and end > 0:
        first = raw.find(b"PK\x01\x02")
        entries = bytes(raw[first:end]) * rng.choice((2, 1000, 30_000))
        tail = raw[end:] + bytes(22)
        tail[12:20] = struct.pack("<II", len(entries), first)
        raw = raw[:first] + entries + tail[:22]
    if rng.random() < 0.2:
        lie = struct.pack(
            "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *(abs(rng.choice(NUMBERS)) % (1 << 63) for _ in range(4))
        )
        raw[end:end] = lie + struct.pack("<4sIQI", b"PK\x06\x07", 0, rng.choice((0, max(end, 0), 1 << 62)), 1)
    return opened(folder / "x.npz", bytes(raw), rng)


def arrays_family(rng: random.Random, folder: Path) -> object:
    """Write a .npy header of any shape and type."""
    shape = rng.choice(
        (
            "(4, 2)",
            "(8, 4)",
            "(4, 2)",
            "(8, 4)",
            "(16, 2)",
            "(0, 140737488355328)",
            f"({rng.choice(NUMBERS)}, {rng.choice(NUMBERS)})",
            "(True, 2)",
            "(1.5, 2)",
            "4",
            "()",
            "(4, 2)" + " " * rng.choice((0, 9000, 60_000)),
            "(" * rng.randrange(1, 3000),
            "[" * 90 + "]" * 90,
            "{'a': 1}",
            "(4, 2), " * 50,
            "-" * rng.randrange(1, 9000) + "1",
            "(lambda: 1)()",
            "'x' * 10 ** 9",
            "(10 ** 10 ** 10,)",
        )
    )
    descr = rng.choice(
        (
            "'<f4'",
            "'<f4'",
            "'>f4'",
            "'<f8'",
            "'|O'",
            "'<U9'",
            "'|S5'",
            "'<M8[s]'",
            "'<c16'",
            "'<f16'",
            "'V99999999999'",
            "[('a', '<f4')]",
            "'(99999,99999)f8'",
            "[('a', '|O', (9, 9))]",
            "'" + "f4," * 900 + "'",
            "''",
            "None",
            "[]",
            "('<f4', (2,))",
            "{'names': ['a']}",
        )
    )
    order = rng.choice(("True", "False", "False", "None"))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    length = struct.pack("<H" if version == b"\1\0" else "<I", min(len(header), 65535))
    raw = b"\x93NUMPY" + version + length + header + rng.randbytes(rng.choice((32, 128, 128, 4096)))
    if rng.random() < 0.5:
        return opened(folder / "x.npy", raw, rng)
    with zipfile.ZipFile(folder / "made.npz", "w", compression=rng.choice((0, 8))) as z:
        z.writestr(f"{rng.choice(('W_dec', 'array', 'b_dec', 'é'))}.npy", raw)
    return opened(folder / "x.npz", (folder / "made.npz").read_bytes(), rng)
