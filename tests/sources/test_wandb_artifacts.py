"""Tests of Weights & Biases artifacts against a loopback server, with a key and without."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import CHECKPOINTS, KEY
from wandb_server import Loopback, StoredArtifact

from sae_geometry.sources import SourceError, cached_runs, clear_cache, fetch, load

PLACE = "acme/sae/sae_gpt2"
STANDARD = CHECKPOINTS / "saelens_standard"


@pytest.fixture(params=["keyless", "with a key"])
def world(request: pytest.FixtureRequest, wandb_world: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    if request.param == "with a key":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    files = {n: (STANDARD / n).read_bytes() for n in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")}
    files |= {f"media/{i}.png": b"p" for i in range(120)}  # more than a page
    older = {"sae_weights.safetensors": (CHECKPOINTS / "saelens_topk" / "sae_weights.safetensors").read_bytes()}
    said = {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_pre"}
    wandb_world.artifacts = {f"{PLACE}:v3": StoredArtifact(files, aliases=("latest", "best")),
                             f"{PLACE}:v2": StoredArtifact(older, metadata=said)}  # fmt: skip
    return wandb_world


@pytest.mark.parametrize(
    "address",
    [
        f"wandb:{PLACE}:v3",
        f"{PLACE}:best",
        f"mine=wandb:{PLACE}:latest#sae_weights.safetensors",
        "https://wandb.ai/acme/sae/artifacts/model/sae_gpt2/v3",
        "https://wandb.ai/acme/sae/artifacts/model/sae_gpt2/v3/files/sae_weights.safetensors",
        "https://wandb.ai/acme/sae/artifacts/model/sae_gpt2/latest/overview?nw=x",
        f"wandb-artifact://{PLACE}:v3",
    ],
)
def test_a_version_is_read_under_every_name_of_it(world: Loopback, address: str) -> None:
    d = load(address, "all")
    assert np.abs(d.directions.numpy() - np.load(STANDARD / "expected_decoder.npy")).max() <= 1e-6
    assert d.address == f"wandb:{PLACE}:v3#sae_weights.safetensors"
    assert (d.hook_point, d.model, d.alive.n_dead) == ("blocks.6.hook_resid_pre", "gpt2-small", 24)
    assert (d.metadata["artifact"], d.metadata["artifact_type"]) == (f"{PLACE}:v3", "model")
    if not address.startswith("mine"):
        assert d.name == "sae_gpt2 v3"


def test_what_was_said_when_it_was_logged_is_its_configuration(world: Loopback) -> None:
    d = load(f"wandb:{PLACE}:v2")
    assert (d.model, d.hook_point, d.name) == ("gpt2", "blocks.3.hook_resid_pre", "sae_gpt2 v2")


def test_a_version_in_the_cache_costs_no_request_and_an_alias_may_move(world: Loopback) -> None:
    first = load(f"wandb:{PLACE}:latest")
    n = len(world.requests)
    for offline in (False, True):
        assert load(f"wandb:{PLACE}:v3", offline=offline).fingerprint == first.fingerprint
    assert load(f"wandb:{PLACE}:latest", offline=True).address == first.address
    assert len(world.requests) == n
    with pytest.raises(SourceError, match=r"v2 is not in the cache .*leave out --offline"):
        load(f"wandb:{PLACE}:v2", offline=True)
    world.artifacts[f"{PLACE}:v4"] = StoredArtifact(world.artifacts[f"{PLACE}:v2"].files, aliases=("latest",))
    world.artifacts[f"{PLACE}:v3"].aliases = ("best",)
    assert load(f"wandb:{PLACE}:latest").address == f"wandb:{PLACE}:v4#sae_weights.safetensors"
    assert [run.address for run in cached_runs()] == [f"wandb:{PLACE}:v3", f"wandb:{PLACE}:v4"]
    assert clear_cache(f"wandb:{PLACE}:v3") > 0
    assert [run.address for run in cached_runs()] == [f"wandb:{PLACE}:v4"]


def test_fetch_says_what_it_fetched(world: Loopback) -> None:
    names = [f.path.name for f in fetch(f"wandb:{PLACE}:v3")]
    assert names == ["sae_weights.safetensors", "cfg.json", "sparsity.safetensors"]


def test_what_is_not_there_is_one_sentence(world: Loopback) -> None:
    with pytest.raises(SourceError, match=f"{PLACE}:v9"):
        load(f"wandb:{PLACE}:v9")
    with pytest.raises(SourceError, match=r"has no file 'x.pt'; it has sae_weights.safetensors"):
        load(f"wandb:{PLACE}:v3#x.pt")
    world.artifacts[f"{PLACE}:v5"] = StoredArtifact({"table.json": json.dumps([1]).encode()})
    with pytest.raises(SourceError, match="contains no weights"):
        load(f"wandb:{PLACE}:v5")


def test_a_damaged_file_does_not_reach_the_cache(world: Loopback) -> None:
    world.faults["sae_weights.safetensors"] = lambda h, c: h.reply(c[:-1] + b"x")
    with pytest.raises(SourceError, match="MD5 is not the server's"):
        load(f"wandb:{PLACE}:v3")
    world.faults.clear()
    assert load(f"wandb:{PLACE}:v3").n_latents == 232
