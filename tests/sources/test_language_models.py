"""Tests of unembeddings from Hugging Face: only headers and two tensors are downloaded."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hf_server import HuggingFace, StoredRepo
from safetensors.torch import save

from sae_geometry.labels import read_unembedding
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.errors import SourceError

V, D = 50, 8
TOKENIZER = json.dumps({"model": {"vocab": {f"Ġw{i}": i for i in range(V)}}, "decoder": {"type": "ByteLevel"}}).encode()


def tensor(seed: int, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


HEAD, NORM = tensor(0, V, D), tensor(1, D)
SHARDS = {
    "model-00001-of-00003.safetensors": {"model.embed_tokens.weight": tensor(2, V, D), "a": tensor(3, 999)},
    "model-00002-of-00003.safetensors": {"b": tensor(4, 5000), "model.norm.weight": NORM},
    "model-00003-of-00003.safetensors": {"lm_head.weight": HEAD, "c": tensor(5, 777)},
}


def sharded() -> StoredRepo:
    where = {key: name for name, tensors in SHARDS.items() for key in tensors}
    small = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": TOKENIZER,
             "model.safetensors.index.json": json.dumps({"weight_map": where}).encode()}  # fmt: skip
    return StoredRepo({**small, **{name: save(tensors) for name, tensors in SHARDS.items()}}, small=set(small))


def fetched(world: HuggingFace) -> dict[str, int]:
    """Return the number of bytes requested from each weights file."""
    found: dict[str, int] = {}
    for method, path, headers in world.requests:
        name = path.rpartition("/")[2].partition("?")[0]
        if method == "GET" and name.endswith(".safetensors"):
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["range"]).groups()
            found[name] = found.get(name, 0) + int(last) - int(first) + 1
    return found


def header_bytes(file: bytes) -> int:
    return 8 + int.from_bytes(file[:8], "little")


def test_a_sharded_model_costs_two_tensors_and_their_headers(hf_world):
    repo = hf_world.repos["org/model"] = sharded()
    u = read_unembedding("hf://org/model")
    scaled = HEAD.float() * NORM.float()
    torch.testing.assert_close(u.rows, scaled - scaled.mean(0), atol=1e-5, rtol=1e-5)
    assert u.tokens[3] == " w3"
    assert "lm_head.weight times model.norm.weight" in u.how
    norm, head = list(SHARDS)[1:]
    assert fetched(hf_world) == {
        norm: header_bytes(repo.files[norm]) + NORM.numel() * 2,
        head: header_bytes(repo.files[head]) + HEAD.numel() * 2,
    }
    hf_world.requests.clear()
    again = read_unembedding("hf://org/model", Context(offline=True))
    torch.testing.assert_close(again.rows, u.rows, atol=0, rtol=0)
    assert not hf_world.requests


def test_a_model_in_one_file_is_read_likewise_and_a_damaged_copy_fetched_again(hf_world, cache):
    files = {"config.json": b'{"model_type": "gpt2"}', "tokenizer.json": TOKENIZER}
    weights = {"wte.weight": HEAD, "ln_f.weight": NORM, "ln_f.bias": NORM.clone(), "h.0.x": tensor(6, 4000)}
    hf_world.repos["org/one"] = StoredRepo({**files, "model.safetensors": save(weights)}, small=set(files))
    u = read_unembedding("org/one")
    assert "wte.weight (tied)" in u.how
    assert fetched(hf_world)["model.safetensors"] < 3000
    copy = next(cache.rglob("model.safetensors.wte.weight.bin"))
    copy.write_bytes(bytes(len(copy.read_bytes())))
    with pytest.raises(SourceError, match="damaged in the cache"):
        read_unembedding("hf://org/one", Context(offline=True))
    torch.testing.assert_close(read_unembedding("hf://org/one").rows, u.rows)


@pytest.mark.parametrize(
    "record",
    [
        {"keys": None, "tensors": None},
        {"keys": 3, "tensors": []},
        {"tensors": {"wte.weight": 5, "ln_f.weight": {"dtype": "load", "shape": [D], "sha256": ""}}},
    ],
)
def test_a_record_that_is_not_as_it_was_written_is_fetched_again(hf_world, cache, record):
    files = {"config.json": b'{"model_type": "gpt2"}', "tokenizer.json": TOKENIZER}
    hf_world.repos["org/one"] = StoredRepo(
        {**files, "model.safetensors": save({"wte.weight": HEAD, "ln_f.weight": NORM})}, small=set(files)
    )
    u = read_unembedding("org/one")
    written = next(cache.rglob("model.safetensors.tensors.json"))
    written.write_text(json.dumps(record))
    with pytest.raises(SourceError, match="leave out --offline"):
        read_unembedding("hf://org/one", Context(offline=True))
    torch.testing.assert_close(read_unembedding("hf://org/one").rows, u.rows)


def test_what_cannot_be_had_is_one_sentence(hf_world):
    whole = hf_world.repos["org/model"] = sharded()
    hf_world.faults[list(SHARDS)[2]] = lambda handler, content: handler.reply(content, 200)
    with pytest.raises(SourceError, match="does not support range requests"):
        read_unembedding("hf://org/model")
    hf_world.faults.clear()
    with pytest.raises(SourceError, match="leave out --offline"):
        read_unembedding("hf://org/other", Context(offline=True))
    whole.files[list(SHARDS)[2]] = b"\xff" * 100
    with pytest.raises(SourceError, match="the header claims"):
        read_unembedding("hf://org/model")
    del whole.files[list(SHARDS)[2]]
    with pytest.raises(SourceError, match="lists missing shards"):
        read_unembedding("hf://org/model")
    with pytest.raises(SourceError, match="not a language model"):
        read_unembedding("demo:local-seed0")
