"""Folders of shards, tables of labels, exports and tokenizers with random errors."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed.checkpoint as dcp
from fuzz_junk import WORDS, changed, junk, mangled
from safetensors.torch import save

import sae_geometry as sg
from sae_geometry.labels.neuronpedia import read_export
from sae_geometry.sources import load

ROWS = [{"latent": i, "name": f"n{i}", "score": 0.5, "tokens": ["a", " b"]} for i in range(20)]
RECORDS = [{"modelId": "m", "layer": "s", "index": str(i), "frac_nonzero": 0.5, "pos_str": ["a"],
            "description": "d", "explanationModelName": "e"} for i in range(4)]  # fmt: skip
TOKENIZER = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġc": 2}}, "decoder": {"type": "ByteLevel"},
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": []}, "added_tokens": [{"id": 3, "content": "<s>"}],
             }  # fmt: skip
CONFIG = {"model_type": "gpt2", "text_config": {"model_type": "gemma2"}, "tie_word_embeddings": True}
INDEX = {"weight_map": {"W_dec": "a-00001-of-00002.safetensors", "W_enc": "a-00002-of-00002.safetensors"}}


def distributed() -> dict[str, bytes]:
    """Return the files of a valid folder of shards."""
    place = Path(tempfile.mkdtemp())
    with warnings.catch_warnings(action="ignore"):
        dcp.save({"W_dec": torch.randn(8, 4), "W_enc": torch.randn(4, 8), "step": 3}, checkpoint_id=str(place / "x"))
    found = {p.name: p.read_bytes() for p in (place / "x").iterdir()}
    shutil.rmtree(place)
    return found


def parquets() -> list[bytes]:
    """Return valid label tables; reading them once starts pyarrow's threads before memory is limited."""
    found = []
    for codec in ("zstd", "snappy", "gzip", "none"):
        pq.write_table(pa.Table.from_pylist(ROWS), out := io.BytesIO(), compression=codec)
        found.append(out.getvalue())
        pq.read_table(io.BytesIO(found[-1])).to_pandas()
    return found


SHARDS, PARQUETS = distributed(), parquets()


def fresh(folder: Path, name: str) -> Path:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    return folder / name


def folders_family(rng: random.Random, folder: Path) -> object:
    """Write shards with a corrupted file or a wrong index."""
    place = fresh(folder, "shards")
    if rng.random() < 0.6:
        wrong = rng.choice(list(SHARDS))
        for name, raw in SHARDS.items():
            (place / name).write_bytes(mangled(rng, raw) if name == wrong else raw)
    else:
        halves = {"W_dec": torch.randn(8, 4)}, {"W_enc": torch.randn(4, 8)}
        for i, half in enumerate(halves, start=1):
            (place / f"a-0000{i}-of-00002.safetensors").write_bytes(save(half))
        (place / "a.safetensors.index.json").write_text(json.dumps(changed(rng, INDEX)))
    if rng.random() < 0.5:
        (place / "config.json").write_text(json.dumps(junk(rng)))
    return load(place, "all", latent_axis=0)


def text_of(rng: random.Random, value: Any) -> bytes:
    """Return the JSON of a value, sometimes broken."""
    raw = json.dumps(value).encode()
    return mangled(rng, raw) if rng.random() < 0.2 else raw


def labels_family(rng: random.Random, folder: Path) -> object:
    """Write a table of labels in any format, or an export of Neuronpedia."""
    kind = rng.choice(("csv", "jsonl", "parquet", "export", "beside"))
    path = folder / f"labels.{kind}"
    if kind == "export":
        for name in ("features", "explanations"):
            batches = fresh(folder, name)
            raw = b"\n".join(text_of(rng, changed(rng, r) if rng.random() < 0.4 else r) for r in RECORDS)
            packed = gzip.compress(raw)
            (batches / "batch-0.jsonl.gz").write_bytes(mangled(rng, packed) if rng.random() < 0.3 else packed)
        return read_export(folder, "m/s")
    if kind == "csv":
        rows = [[rng.choice((str(i), str(i), *WORDS)).replace("\ud800", "?"), "x"] for i in range(5)]
        path.write_bytes(mangled(rng, "\n".join(",".join(r) for r in [["latent", "x"], *rows]).encode()))
    elif kind == "jsonl":
        path.write_bytes(b"\n".join(text_of(rng, changed(rng, r) if rng.random() < 0.4 else r) for r in ROWS))
    else:
        path.write_bytes(mangled(rng, rng.choice(PARQUETS)))
    if kind != "beside":
        d = sg.Dictionary.from_decoder(torch.eye(40), latent_axis=0)
        return d.labeled(sg.read_labels(path))
    (folder / "ae.labels.parquet").write_bytes(path.read_bytes())
    (folder / "ae.safetensors").write_bytes(save({"W_dec": torch.randn(40, 4), "b_enc": torch.zeros(40)}))
    try:
        return load(folder / "ae.safetensors")
    finally:
        (folder / "ae.labels.parquet").unlink()


def models_family(rng: random.Random, folder: Path) -> object:
    """Write a language model's folder: its configuration, tokenizer, index and weights."""
    place = fresh(folder, "model")
    wrong = rng.randrange(4)
    (place / "config.json").write_bytes(
        text_of(rng, changed(rng, CONFIG)) if wrong == 0 else json.dumps(CONFIG).encode()
    )
    table = changed(rng, changed(rng, TOKENIZER)) if wrong == 1 else TOKENIZER
    (place / "tokenizer.json").write_bytes(text_of(rng, table) if wrong == 1 else json.dumps(table).encode())
    weights = save({"lm_head.weight": torch.randn(4, 6), "model.norm.weight": torch.ones(rng.choice((6, 6, 6, 5)))})
    (place / "model.safetensors").write_bytes(mangled(rng, weights) if wrong == 2 else weights)
    if wrong == 3:
        index = {"weight_map": {"lm_head.weight": "model.safetensors"}}
        (place / "model.safetensors.index.json").write_bytes(text_of(rng, changed(rng, index)))
    return sg.read_unembedding(place)
