"""Files and answers made wrong at random: a dictionary or one sentence each, within a bound on memory and time.

    python tests/sources/fuzz.py --seed 0 --seconds 60      every family in turn, until the time is up
    python tests/sources/fuzz.py --family pickles --case 17  one case again, with its traceback

A case is made from its seed, family and number alone. `tests/sources/test_fuzz.py` runs it for less than a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from limited import TooLongError, limited  # noqa: E402

import sae_geometry as sg  # noqa: E402
from sae_geometry.sources import SourceError, load, runs  # noqa: E402
from sae_geometry.sources.http import Limits, set_limits  # noqa: E402

Family = Callable[[random.Random, Path], object]

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    8,
    32,
    -1,
    255,
    1 << 15,
    1 << 31,
    1 << 32,
    1 << 47,
    1 << 62,
    1 << 63,
    1 << 80,
    10**30,
    10**400,
)
NAMES = (
    "W_dec", "W_enc", "b_dec", "b_enc", "W_D", "W_E", "W_D.0", "W_D.1", "W_dec_0", "W_enc_0", "w_dec", "w_enc", "decoder.weight",
    "encoder.weight", "D", "E", "array", "arr_0", "frequency", "blocks-1.decoder.weight", "blocks-1.encoder.0.weight",
    "decoder_linear.weight", "pre_bias", "latent_bias", "latents_activation_frequency", "threshold", "state_dict.W_dec",
    "W_D.1000000000", "W_dec_999999999", "a.b.c.d", "", "é", "\n", "\u202e", "x" * 5000,
)  # fmt: skip
WORDS = (
    "",
    "a",
    "resid_pre",
    "é",
    "\n",
    "\ud800",
    "\u202e",
    "../../x",
    "samples_1.pt",
    "0",
    "²",
    "-1",
    "1e999",
    "x" * 3000,
)


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON can have."""
    kind = rng.randrange(8 if depth < 3 else 6)
    match kind:
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice((None, True, False, 0.5, -1.5, float("nan"), float("inf"), 1e308))
        case 2 | 3:
            return rng.choice(WORDS)
        case 4:
            return [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
        case 5:
            return {}
        case 6:
            return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {rng.choice(WORDS + NAMES): junk(rng, depth + 1) for _ in range(rng.randrange(4))}


def changed(rng: random.Random, value: Any) -> Any:
    """A JSON value with one place of it, or a few, replaced, dropped or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        return value[:i] + [changed(rng, value[i])] * rng.choice((1, 1, 1, 2)) + value[i + 1 :]
    return junk(rng)


def mangled(rng: random.Random, raw: bytes) -> bytes:
    """Bytes with a few of them flipped, overwritten, dropped, repeated or cut off, more often near the ends."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        n = len(out)
        if not n:
            break
        at = rng.choice((rng.randrange(min(n, 1024)), n - 1 - rng.randrange(min(n, 1024)), rng.randrange(n)))
        size = rng.choice((1, 2, 4, 8))
        match rng.randrange(6):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + size] = rng.randbytes(size)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[max(0, at - 50) : at]
            case 4:
                out[at : at + size] = rng.choice((b"\0", b"\x7f", b"\x80", b"\xff")) * size
            case _:
                if rng.random() < 0.3:
                    del out[at:]
    return bytes(out)


# --- files ---------------------------------------------------------------------------------------------------------


def originals() -> dict[str, list[bytes]]:
    """Small right files, by container."""
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
    """What `load` makes of a file."""
    path.write_bytes(raw)
    return load(path, "all", latent_axis=rng.choice((None, None, 0, 1)), drop_bad=rng.random() < 0.5)


def bytes_family(rng: random.Random, folder: Path) -> object:
    """A right file, mangled."""
    raw = rng.choice(ORIGINALS[rng.choice(list(ORIGINALS))])
    return opened(folder / "mangled.pt", mangled(rng, raw), rng)


def safetensors_family(rng: random.Random, folder: Path) -> object:
    """A header of any shapes, offsets and types, over bytes that may fit it."""
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
        raw = raw[:-1] + b"," + raw[1:]  # every name twice
    length = len(raw) if rng.random() < 0.9 else rng.choice(NUMBERS) % (1 << 64)
    body = rng.randbytes(min(at, 1 << 16)) if rng.random() < 0.5 else b"\0" * min(at, 1 << 20)
    return opened(folder / "x.safetensors", struct.pack("<Q", length % (1 << 64)) + raw + body, rng)


OPCODES = [
    b"(", b")", b"]", b"}", b"N", b"\x88", b"\x89", b"t", b"\x85", b"\x86", b"\x87", b"u", b"s", b"a", b"e", b"0", b"2", b"R", b"b",
    b"Q", b"\x94", b"l", b"d", b"\x93", b"\x81", b"1",
]  # fmt: skip
GLOBALS = (
    b"collections\nOrderedDict", b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_tensor_v3", b"torch\nSize",
    b"torch\nFloatStorage", b"torch\ndevice", b"torch._utils\n_rebuild_parameter", b"torch\nfloat32", b"torch\nqint8",
    b"torch\ncomplex64", b"torch.storage\nUntypedStorage", b"os\nsystem", b"builtins\neval", b"torch\n_dynamo", b"numpy\nndarray",
)  # fmt: skip


def pickle_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def opcodes(rng: random.Random, n: int) -> bytes:
    """Any steps at all."""
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
    """Tables of tensors whose numbers are any."""

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
    """Few bytes that could cost much: long names in deep tables, one thing many times, keys of one hash."""
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
    """A torch archive with right checksums and any pickle."""
    raw = rng.choice((
        lambda: opcodes(rng, rng.choice((5, 30, 300))), lambda: tensor_pickle(rng), lambda: exhausting_pickle(rng),
        lambda: mangled(rng, tensor_pickle(rng)),
    ))()  # fmt: skip
    packing = rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(folder / "made.pt", "w", compression=packing) as z:
        z.writestr("a/data.pkl", raw)
        z.writestr("a/data/0", rng.randbytes(rng.choice((0, 128, 4096))))
    return opened(folder / "x.pt", (folder / "made.pt").read_bytes(), rng)


def zips_family(rng: random.Random, folder: Path) -> object:
    """An archive whose directory and local heads lie, with entries by the thousand or sharing their bytes."""
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
        raw[end:end] = lie + struct.pack("<4sIQI", b"PK\x06\x07", 0, rng.choice((0, end, 1 << 62)), 1)
    return opened(folder / "x.npz", bytes(raw), rng)


def arrays_family(rng: random.Random, folder: Path) -> object:
    """A .npy header of any shape and type."""
    shape = rng.choice((
        "(4, 2)", "(8, 4)", "(4, 2)", "(8, 4)", "(16, 2)", "(0, 140737488355328)", f"({rng.choice(NUMBERS)}, {rng.choice(NUMBERS)})", "(True, 2)", "(1.5, 2)", "4", "()",
        "(4, 2)" + " " * rng.choice((0, 9000, 60_000)), "(" * rng.randrange(1, 3000), "[" * 90 + "]" * 90, "{'a': 1}", "(4, 2), " * 50,
        "-" * rng.randrange(1, 9000) + "1", "(lambda: 1)()", "'x' * 10 ** 9", "(10 ** 10 ** 10,)",
    ))  # fmt: skip
    descr = rng.choice((
        "'<f4'", "'<f4'", "'>f4'", "'<f8'", "'|O'", "'<U9'", "'|S5'", "'<M8[s]'", "'<c16'", "'<f16'", "'V99999999999'", "[('a', '<f4')]",
        "'(99999,99999)f8'", "[('a', '|O', (9, 9))]", "'" + "f4," * 900 + "'", "''", "None", "[]", "('<f4', (2,))", "{'names': ['a']}",
    ))  # fmt: skip
    header = f"{{'descr': {descr}, 'fortran_order': {rng.choice(('True', 'False', 'False', 'None'))}, 'shape': {shape}, }}\n".encode()
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    length = struct.pack("<H" if version == b"\1\0" else "<I", min(len(header), 65535))
    raw = b"\x93NUMPY" + version + length + header + rng.randbytes(rng.choice((32, 128, 128, 4096)))
    if rng.random() < 0.5:
        return opened(folder / "x.npy", raw, rng)
    with zipfile.ZipFile(folder / "made.npz", "w", compression=rng.choice((0, 8))) as z:
        z.writestr(f"{rng.choice(('W_dec', 'array', 'b_dec', 'é'))}.npy", raw)
    return opened(folder / "x.npz", (folder / "made.npz").read_bytes(), rng)


TAGS = ("", "", "", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!python/name:os.system ", "!x ", "!!merge ")  # fmt: skip


def document(rng: random.Random, depth: int = 0) -> str:
    """A YAML flow value of any tags, anchors and merges."""
    tag = rng.choice(TAGS) + (f"&a{rng.randrange(4)} " if rng.random() < 0.2 else "")
    match rng.randrange(7 if depth < 5 else 4):
        case 0:
            return f"*a{rng.randrange(4)} "
        case 1 | 2:
            scalar = rng.choice(
                (
                    "maybe",
                    "''",
                    "1:60:90",
                    "0x",
                    "0b",
                    "1_",
                    ".inf",
                    "-.",
                    "2020-99-99",
                    "~",
                    "y",
                    str(rng.choice(NUMBERS)),
                    "1e999",
                    '"\\UFFFFFFFF"',
                    "'x'",
                )
            )
            return tag + scalar
        case 3:
            return tag + "[" + "[" * rng.choice((0, 3, 2000)) + "]"
        case 4 | 5:
            keys = (
                "hook_name",
                "d_sae",
                "<<",
                "<<",
                "seed",
                "metadata",
                "[a]",
                "{a: b}",
                "? x",
                "1",
                "~",
                "model_name",
            )
            return (
                tag
                + "{"
                + ", ".join(f"{rng.choice(keys)}: {document(rng, depth + 1)}" for _ in range(rng.randrange(6)))
                + "}"
            )
        case _:
            return tag + "[" + ", ".join(document(rng, depth + 1) for _ in range(rng.randrange(6))) + "]"


def merges(rng: random.Random) -> str:
    width = rng.randrange(2, 10)
    sort = rng.choice(("{<<: [%s]}", "[%s]", "{<<: [%s], x: 1}"))
    lines = [f"a{i}: &a{i} " + sort % ", ".join([f"*a{i - 1}"] * width) for i in range(1, rng.randrange(3, 30))]
    return "\n".join(["a0: &a0 {x: 1, y: 2}", *lines])


def configs_family(rng: random.Random, folder: Path) -> object:
    """A right array with a configuration of any content beside it."""
    for old in folder.iterdir():
        old.unlink()
    name = rng.choice(
        ("cfg.json", "config.json", "config.yaml", "final_config.yaml", "wandb_run.json", "hyperparams.json")
    )
    if name.endswith("yaml"):
        text = rng.choice(
            (lambda: document(rng), lambda: f"a: {document(rng)}\nb: {document(rng)}", lambda: merges(rng))
        )()
        raw = text.encode("utf-8", "surrogatepass")
    else:
        right = {
            "d_sae": 8, "d_in": 4, "hook_name": "blocks.1.hook_resid_pre", "model_name": "m", "metadata": {"hook_name": "x"}, "seed": 1, "k": 2,
            "trainer": {"dict_size": 8, "layer": 3, "submodule_name": "resid_post_layer_8"}, "config": {"seed": 1}, "path": "a/b/c",
            "summary": {"sparsity/alive_dict_elements_indices_final/x": [1, 2], "sparsity/eval/L_0/x": 3.0}, "state": "finished",
            "saes": {"sae_positions": ["x"]}, "weights": ["x"], "sums": {"x": "0"},
        }  # fmt: skip
        raw = json.dumps(changed(rng, changed(rng, right))).encode()
    (folder / name).write_bytes(mangled(rng, raw) if rng.random() < 0.3 else raw)
    if rng.random() < 0.3:
        from safetensors.torch import save_file

        values = torch.tensor(
            [rng.choice((-10.0, -3.0, 0.0, 5.0, float("nan"), float("inf"), 400.0)) for _ in range(8)]
        )
        save_file({"sparsity": values}, folder / "sparsity.safetensors")
    return opened(folder / "w.safetensors", ORIGINALS["safetensors"][0], rng)


def in_memory_family(rng: random.Random, folder: Path) -> object:
    """Arrays of every type and shape, where a dictionary, biases, frequencies and ids are wanted."""
    base = np.arange(1, 33, dtype=np.float64).reshape(8, 4)

    def weird(rng: random.Random, like: np.ndarray) -> Any:
        t = torch.tensor(like)
        return rng.choice((
            lambda: like, lambda: t, lambda: like.tolist(), lambda: like.astype(np.longdouble), lambda: like.astype(str), lambda: like.astype(object),
            lambda: like.astype(">f4"), lambda: like.astype("c16"), lambda: like.astype("M8[s]"), lambda: like[::-1], lambda: like.astype(np.uint64) + (1 << 63),
            lambda: np.ma.array(like, mask=like > like.mean()), lambda: np.ma.array(like), lambda: np.zeros(like.shape, [("a", "f4")]), lambda: t.to_sparse(),
            lambda: t.to(torch.float8_e4m3fn), lambda: t.to(torch.bfloat16), lambda: t.to("meta"), lambda: t.to(torch.uint16), lambda: t.bool(),
            lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), lambda: t.to(torch.complex64), lambda: like * np.nan, lambda: like * 0,
            lambda: like / like.max(), lambda: [1 << 63] * len(like), lambda: [10**400], lambda: "text", lambda: None, dict, lambda: like.reshape(-1)[:0],
            lambda: [[1], [1, 2]], lambda: t.to_sparse_csr() if t.ndim == 2 else t, lambda: np.int64(3), lambda: like.astype(np.float16), lambda: -like,
        ))()  # fmt: skip

    vector = np.arange(8, dtype=np.float64)
    if rng.random() < 0.2:
        d = sg.Dictionary.from_decoder(base, latent_axis=0)
        return d.select(weird(rng, vector))
    if rng.random() < 0.2:
        return sg.as_dictionary(
            rng.choice((lambda: weird(rng, base), lambda: {"W_dec": weird(rng, base), "W_enc": weird(rng, base.T)}))()
        )
    return sg.Dictionary.from_decoder(
        weird(rng, base) if rng.random() < 0.5 else base, latent_axis=rng.choice((0, 1)) if rng.random() < 0.2 else 0,
        encoder=weird(rng, base) if rng.random() < 0.3 else None, encoder_bias=weird(rng, vector) if rng.random() < 0.3 else None,
        decoder_bias=weird(rng, vector[:4]) if rng.random() < 0.3 else None, frequency=weird(rng, vector) if rng.random() < 0.3 else None,
        alive=weird(rng, vector) if rng.random() < 0.3 else None, drop_bad=rng.random() < 0.5,
    )  # fmt: skip


# --- servers -------------------------------------------------------------------------------------------------------


class Servers:
    """A W&B and a Hugging Face whose every answer can be made wrong."""

    def __init__(self, folder: Path) -> None:
        import os

        from hf_server import COMMIT, HuggingFace, StoredRepo
        from wandb_server import Loopback, StoredRun

        os.environ.update(
            SAE_GEOMETRY_CACHE=str(folder / "cache"), HF_HUB_CACHE=str(folder / "hf"), NO_PROXY="127.0.0.1"
        )
        os.environ.update(HOME=str(folder), HF_HUB_DISABLE_TELEMETRY="1")
        for name in ("WANDB_API_KEY", "HF_TOKEN", "NETRC"):
            os.environ.pop(name, None)
        from huggingface_hub import constants

        self.folder = folder
        self.wandb, self.hf = Loopback(), HuggingFace()
        os.environ["WANDB_BASE_URL"] = self.wandb.url
        constants.ENDPOINT = self.hf.url
        constants.HUGGINGFACE_CO_URL_TEMPLATE = self.hf.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants.HF_HUB_CACHE = str(folder / "hf")
        summary = {"sparsity/alive_dict_elements_indices_final/x": [1, 2], "sparsity/eval/L_0/x": 3.0}
        config = {
            "saes": {"sae_positions": ["x"]},
            "seed": 0,
            "loss": {"logits_kl": {"coeff": 0.5}, "in_to_orig": None},
        }
        self.run = StoredRun(config, summary, {"samples_1.pt": ORIGINALS["pt"][0], "config.yaml": b"a: 1"})
        self.wandb.runs["a/b/c"] = self.run
        self.hf.repos["a/b"] = StoredRepo(
            {"sae.safetensors": ORIGINALS["safetensors"][0], "cfg.json": b"{}"}, {"cfg.json"}, COMMIT
        )
        set_limits(Limits(connect=1.0, silence=0.5, tries=1, pause=0.0, longest_pause=0.0))

    def empty(self) -> None:
        import shutil

        for name in ("cache", "hf"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


_SERVERS: list[Servers] = []


def servers() -> Servers:
    if not _SERVERS:
        _SERVERS.append(Servers(Path(tempfile.mkdtemp(prefix="fuzz-"))))
    _SERVERS[0].empty()
    return _SERVERS[0]


def sent(rng: random.Random, raw: bytes) -> bytes:
    """A JSON answer with a place of it changed, or mangled, or something else."""
    if rng.random() < 0.15:
        return mangled(rng, raw)
    return json.dumps(changed(rng, json.loads(raw))).encode()


def wandb_family(rng: random.Random, folder: Path) -> object:
    """Answers of W&B: each of a run, its files and its project with something wrong in it."""
    world = servers().wandb
    wrong = rng.randrange(3)
    count = 0

    def fault(h: Any, body: bytes) -> None:
        nonlocal count
        question = json.loads(body)
        answer = {"data": h.answer(question["query"], question.get("variables") or {})}
        if rng.random() < 0.3:  # inside of the JSON that is text inside of JSON
            for run in [answer["data"]["project"].get("run")] if "project" in answer["data"] else []:
                if isinstance(run, dict) and "config" in run:
                    key = rng.choice(("config", "summaryMetrics"))
                    run[key] = json.dumps(changed(rng, json.loads(run[key])))
        raw = json.dumps(answer).encode()
        h.reply(sent(rng, raw) if count == wrong % 2 else raw)
        count += 1

    world.graphql_fault = fault
    if wrong == 2:
        return runs("a/b")
    return load("wandb:a/b/c", "all", latent_axis=0)


def hugging_face_family(rng: random.Random, folder: Path) -> object:
    """Answers of Hugging Face: what a repository holds, and the heads of its files."""
    world = servers().hf
    repo = world.repos["a/b"]
    world.api_fault = world.head_fault = None
    if rng.random() < 0.6:
        world.api_fault = lambda h, _: h.reply(sent(rng, json.dumps(h.info("a/b", repo)).encode()))
    else:
        names = (
            "ETag",
            "X-Linked-Etag",
            "X-Repo-Commit",
            "Content-Length",
            "X-Linked-Size",
            "Location",
            "X-Error-Code",
            "Link",
            "X-Xet-Hash",
        )

        def head(h: Any, _: bytes) -> None:
            usual = {"ETag": '"abc"', "X-Repo-Commit": repo.commit, "Content-Length": "40"}
            strange = {
                rng.choice(names): str(junk(rng)).encode("ascii", "replace").decode().replace("\n", " ")[:200]
                for _ in range(2)
            }
            h.send_response(rng.choice((200, 200, 200, 302, 404, 416, 500)))
            for name, value in {**usual, **strange}.items():
                h.send_header(name, value)
            h.end_headers()

        world.head_fault = head
    return load("hf://a/b", "all", latent_axis=0)


FAMILIES: dict[str, Family] = {
    "bytes": bytes_family,
    "safetensors": safetensors_family,
    "pickles": pickles_family,
    "zips": zips_family,
    "arrays": arrays_family,
    "configs": configs_family,
    "in_memory": in_memory_family,
    "wandb": wandb_family,
    "hugging_face": hugging_face_family,
}


def wrong(error: BaseException, family: str) -> str | None:
    """What is wrong with how a case ended; None for one sentence of ours."""
    text = str(error)
    ours = isinstance(error, SourceError) or (
        type(error) is ValueError and (family == "in_memory" or "coder rows with" in text)
    )
    if (isinstance(error, ValueError) and "is empty" in text) or "are dead by" in text:
        ours = True
    if not ours:
        return f"{type(error).__name__}: {text[:200]!a}"
    if "\n" in text or len(text) > 4000:
        return f"not one sentence: {text[:200]!a}"
    return None


def try_case(family: str, seed: int, number: int, folder: Path) -> tuple[str, str | None]:
    """How a case ended ("read", "refused"), and what is wrong with that."""
    rng = random.Random(f"{seed} {family} {number}")
    try:
        with warnings.catch_warnings(), limited():
            warnings.simplefilter("ignore")
            FAMILIES[family](rng, folder)
    except (Exception, TooLongError) as error:
        found = wrong(error, family)
        if found and "-v" in sys.argv:
            traceback.print_exc()
        return "refused", found
    return "read", None


def main() -> int:
    """Run the families in turn; the exit code is 1 if a case ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--case", type=int)
    parser.add_argument("-v", action="store_true", help="tracebacks")
    args = parser.parse_args()
    chosen = args.family or list(FAMILIES)
    counts: Counter[tuple[str, str]] = Counter()
    bad: dict[tuple[str, str], int] = {}
    slowest = (0.0, "", 0)
    end, number = time.monotonic() + args.seconds, args.case or 0
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() < end:
            for family in chosen:
                for case in [number] if args.case is not None else range(number * 10, number * 10 + 10):
                    start = time.process_time()
                    fate, found = try_case(family, args.seed, case, Path(place))
                    slowest = max(slowest, (time.process_time() - start, family, case))
                    counts[family, fate] += 1
                    if found:
                        counts[family, "bad"] += 1
                        bad.setdefault((family, found[:60]), case)
                        if len(bad) < 60 and bad[family, found[:60]] == case:
                            print(f"BAD {family} --seed {args.seed} --case {case}: {found}", flush=True)
            if args.case is not None:
                break
            number += 1
    for family in chosen:
        n = {fate: counts[family, fate] for fate in ("read", "refused", "bad")}
        print(
            f"{family:<14}{sum(n.values()) - n['bad']:>8,} cases: {n['read']:,} read, {n['refused']:,} refused, {n['bad']:,} bad"
        )
    print(f"the slowest took {slowest[0]:.2f} s of processor time: {slowest[1]} --case {slowest[2]}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
