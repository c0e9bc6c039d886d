"""Tests of checkpoints of several files, from a W&B run, a W&B artifact and Hugging Face: online, cached and again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hf_server import COMMIT, HuggingFace, StoredRepo
from safetensors.torch import save
from wandb_server import Loopback, StoredArtifact, StoredRun

from sae_geometry.sources import SourceError, fetch, load

Publish = Callable[[dict[str, bytes]], tuple[str, str]]

N, D = 12, 4
DECODER = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
SAE = {"W_enc": DECODER.T.contiguous(), "b_enc": torch.zeros(N), "W_dec": DECODER, "b_dec": torch.zeros(D)}
CONFIG = json.dumps({"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_pre"}).encode()


def shards(folder: str, stem: str) -> dict[str, bytes]:
    first, second = (f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2))
    index = {"weight_map": dict.fromkeys(("W_enc", "b_enc"), first) | dict.fromkeys(("W_dec", "b_dec"), second)}
    return {
        f"{folder}{first}": save({k: SAE[k] for k in ("W_enc", "b_enc")}),
        f"{folder}{second}": save({k: SAE[k] for k in ("W_dec", "b_dec")}),
        f"{folder}{stem}.safetensors.index.json": json.dumps(index).encode(),
    }


def crosscoder() -> dict[str, bytes]:
    stack = DECODER[:, None].repeat(1, 2, 1)
    return {
        f"layers/params_layer_{i}.safetensors": save({"w_dec": stack, "w_enc": SAE["W_enc"], "b_enc": torch.zeros(N)})
        for i in range(2)
    }


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("units") / "sae.dcp"
    with warnings.catch_warnings(action="ignore"):  # It warns that there is no process group.
        dcp.save(dict(SAE), checkpoint_id=str(folder))
    return {f"ckpt/sae.dcp/{p.name}": p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(params=["run", "artifact", "hub"])
def publish(request: pytest.FixtureRequest, wandb_world: Loopback, hf_world: HuggingFace) -> Publish:
    """Return a function that publishes files in one of the three places and returns their address and its separator."""

    def put(files: dict[str, bytes]) -> tuple[str, str]:
        if request.param == "run":
            wandb_world.runs["acme/sae/r"] = StoredRun({"seed": 0}, {}, files)
            return "wandb:acme/sae/r", "#"
        if request.param == "artifact":
            wandb_world.artifacts["acme/sae/a:v0"] = StoredArtifact(files)
            return "wandb:acme/sae/a:v0", "#"
        hf_world.repos["org/repo"] = StoredRepo(files)
        return f"hf://org/repo@{COMMIT}", "/"

    return put


def read_whole(address: str) -> None:
    """Load an address, load it again offline, and load the address that it records."""
    d = load(address)
    for again in (load(address, offline=True), load(str(d.address), offline=True)):
        assert (again.fingerprint, again.address, again.hook_point) == (d.fingerprint, d.address, d.hook_point)
        assert again.encoder_directions is not None
    assert torch.allclose(d.directions * d.decoder_norms[:, None], DECODER)
    assert d.hook_point == "blocks.3.hook_resid_pre"


def test_shards_with_an_index(publish: Publish) -> None:
    place, _ = publish(shards("", "model") | {"cfg.json": CONFIG})
    read_whole(place)
    assert {f.path.name for f in fetch(place)} == {*shards("", "model"), "cfg.json"}


def test_one_of_two_units(publish: Publish) -> None:
    place, mark = publish(shards("x/", "a") | shards("x/", "b") | {"x/cfg.json": CONFIG})
    with pytest.raises(SourceError, match=r"2 weights files; give one of .*a\.safetensors\.index\.json"):
        load(place)
    read_whole(f"{place}{mark}x/a-00002-of-00002.safetensors")


def test_a_distributed_checkpoint(publish: Publish, distributed: dict[str, bytes]) -> None:
    place, mark = publish(distributed | {"ckpt/config.json": CONFIG})
    for path in ("", f"{mark}ckpt/sae.dcp"):
        read_whole(place + path)


def test_a_file_a_layer(publish: Publish) -> None:
    place, mark = publish(crosscoder() | {"layers/config.json": CONFIG})
    address = f"{place}{mark}layers::source=1::layer=0"
    d = load(address)
    assert load(str(d.address), offline=True).fingerprint == load(address, offline=True).fingerprint == d.fingerprint
    assert torch.allclose(d.directions * d.decoder_norms[:, None], DECODER)
