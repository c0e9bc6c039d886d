"""Configurations next to a valid checkpoint, and arrays in memory, with random errors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_files import ORIGINALS, opened
from fuzz_junk import NUMBERS, changed, mangled

import sae_geometry as sg

TAGS = (
    "",
    "",
    "",
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "!!timestamp ",
    "!!binary ",
    "!!set ",
    "!!omap ",
    "!!pairs ",
    "!!python/name:os.system ",
    "!x ",
    "!!merge ",
)


def document(rng: random.Random, depth: int = 0) -> str:
    """Return a YAML flow value with any tags, anchors and merges."""
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
    """Write a valid array with a configuration of any content next to it."""
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
            "d_sae": 8,
            "d_in": 4,
            "hook_name": "blocks.1.hook_resid_pre",
            "model_name": "m",
            "metadata": {"hook_name": "x"},
            "seed": 1,
            "k": 2,
            "trainer": {"dict_size": 8, "layer": 3, "submodule_name": "resid_post_layer_8"},
            "config": {"seed": 1},
            "path": "a/b/c",
            "summary": {"sparsity/alive_dict_elements_indices_final/x": [1, 2], "sparsity/eval/L_0/x": 3.0},
            "state": "finished",
            "saes": {"sae_positions": ["x"]},
            "weights": ["x"],
            "sums": {"x": "0"},
        }
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
    """Pass arrays of every type and shape as a dictionary, biases, frequencies and ids."""
    base = np.arange(1, 33, dtype=np.float64).reshape(8, 4)

    def weird(rng: random.Random, like: np.ndarray) -> Any:
        t = torch.tensor(like)
        return rng.choice(
            (
                lambda: like,
                lambda: t,
                lambda: like.tolist(),
                lambda: like.astype(np.longdouble),
                lambda: like.astype(str),
                lambda: like.astype(object),
                lambda: like.astype(">f4"),
                lambda: like.astype("c16"),
                lambda: like.astype("M8[s]"),
                lambda: like[::-1],
                lambda: like.astype(np.uint64) + (1 << 63),
                lambda: np.ma.array(like, mask=like > like.mean()),
                lambda: np.ma.array(like),
                lambda: np.zeros(like.shape, [("a", "f4")]),
                lambda: t.to_sparse(),
                lambda: t.to(torch.float8_e4m3fn),
                lambda: t.to(torch.bfloat16),
                lambda: t.to("meta"),
                lambda: t.to(torch.uint16),
                lambda: t.bool(),
                lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
                lambda: t.to(torch.complex64),
                lambda: like * np.nan,
                lambda: like * 0,
                lambda: like / like.max(),
                lambda: [1 << 63] * len(like),
                lambda: [10**400],
                lambda: "text",
                lambda: None,
                dict,
                lambda: like.reshape(-1)[:0],
                lambda: [[1], [1, 2]],
                lambda: t.to_sparse_csr() if t.ndim == 2 else t,
                lambda: np.int64(3),
                lambda: like.astype(np.float16),
                lambda: -like,
                lambda: np.broadcast_to(like[0], (rng.choice((1 << 40, 1 << 50)), *like[0].shape)),
                lambda: t[:1].expand(rng.choice((1 << 30, 1 << 50)), *t.shape[1:]),
            )
        )()

    vector = np.arange(8, dtype=np.float64)
    if rng.random() < 0.2:
        d = sg.Dictionary.from_decoder(base, latent_axis=0)
        return d.select(weird(rng, vector))
    if rng.random() < 0.2:
        return sg.as_dictionary(
            rng.choice((lambda: weird(rng, base), lambda: {"W_dec": weird(rng, base), "W_enc": weird(rng, base.T)}))()
        )
    return sg.Dictionary.from_decoder(
        weird(rng, base) if rng.random() < 0.5 else base,
        latent_axis=rng.choice((0, 1)) if rng.random() < 0.2 else 0,
        encoder=weird(rng, base) if rng.random() < 0.3 else None,
        encoder_bias=weird(rng, vector) if rng.random() < 0.3 else None,
        decoder_bias=weird(rng, vector[:4]) if rng.random() < 0.3 else None,
        frequency=weird(rng, vector) if rng.random() < 0.3 else None,
        alive=weird(rng, vector) if rng.random() < 0.3 else None,
        drop_bad=rng.random() < 0.5,
    )
