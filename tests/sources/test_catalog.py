"""Tests of the paper's runs by name, and of SAELens's releases with and without its package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers import CHECKPOINTS
from hf_server import HuggingFace, StoredRepo
from wandb_server import Loopback, status

from sae_geometry.sources import AddressError, SourceError, load, paper_runs
from sae_geometry.sources.catalog import CATALOG_FILE, mirrors_of, saelens_address

STANDARD = CHECKPOINTS / "saelens_standard"


def test_every_run_and_every_seed_pair_has_an_address() -> None:
    table = json.loads(CATALOG_FILE.read_text())
    runs = {r.wandb for r in paper_runs().values()}
    for run in table["runs"]:
        assert f"wandb:{run['wandb']}#samples_400000.pt" in runs
    for pair in table["seed_pairs"]:
        assert {f"wandb:{pair[k]}#samples_400000.pt" for k in ("seed0", "seed1")} <= runs
    assert sum(a.endswith(("/ce", "/l0", "/alive")) for a in paper_runs()) == 27


@pytest.mark.parametrize(
    ("address", "run"),
    [
        ("paper:e2e/6/local/ce", "1jy3m5j0"),
        ("paper:e2e/2/e2e+ds/l0", "e26jflpq"),
        ("paper:e2e/10/e2e/alive", "vnfh4vpi"),
        ("paper:e2e/2/local/seed1", "d8vgjnyc"),
        ("paper:e2e/6/e2e/seed0", "tvj2owza"),
        ("paper:e2e/6/e2e/figure-seed0", "pzelh1s8"),
        ("paper:e2e/6/e2e+ds/figure-seed1", "hqo5azo2"),
        ("paper:e2e/6/local/figure-seed1", "uqfp43ti"),
    ],
)
def test_addresses_of_the_paper(address: str, run: str) -> None:
    assert paper_runs()[address].wandb == f"wandb:sparsify/gpt2/{run}#samples_400000.pt"


def test_an_address_that_is_not_in_the_catalog_names_its_neighbors() -> None:
    with pytest.raises(AddressError, match=r"has no paper:e2e/6/local/x; it has .*paper:e2e/6/local/ce"):
        load("paper:e2e/6/local/x")
    with pytest.raises(AddressError, match="it has paper:"):
        load("paper:nonsense")


def test_a_paper_address_is_its_run_with_the_same_fingerprint(wandb_world: Loopback) -> None:
    said: list[str] = []
    d = load("paper:e2e/2/local/seed1", echo=said.append)
    assert d.fingerprint == load("wandb:sparsify/gpt2/d8vgjnyc").fingerprint
    assert d.address == "wandb:sparsify/gpt2/d8vgjnyc#samples_400000.pt"
    assert d.metadata["paper"] == "paper:e2e/2/local/seed1"
    assert any("is wandb:sparsify/gpt2/d8vgjnyc" in line for line in said)


def test_the_mirror_steps_in_where_wandb_refuses(wandb_world: Loopback, hf_world: HuggingFace) -> None:
    wandb_world.graphql_fault = status(403)
    names = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    files = {f"6-res_scl-ajt/{n}": (STANDARD / n).read_bytes() for n in names}
    hf_world.repos["neuronpedia/gpt2-small__res_scl-ajt"] = StoredRepo(files)
    said: list[str] = []
    d = load("paper:e2e/6/local/ce", echo=said.append)
    assert str(d.address).startswith("hf://neuronpedia/gpt2-small__res_scl-ajt@")
    assert d.hook_point == "blocks.6.hook_resid_pre"
    assert any("is not available" in line for line in said)
    assert d.fingerprint == load("saelens:gpt2-small-res_scl-ajt/blocks.6.hook_resid_pre").fingerprint


def test_the_second_mirror_is_apollos_own(wandb_world: Loopback, hf_world: HuggingFace) -> None:
    import io

    import torch

    state = torch.load(CHECKPOINTS / "e2e_sae_single" / "samples_400000.pt", weights_only=True)
    prefix = "blocks-2-hook_resid_pre."
    decoder = torch.nn.functional.normalize(state[prefix + "decoder.weight"], dim=0)
    out = io.BytesIO()
    biases = {"encoder.bias": state[prefix + "encoder.0.bias"], "decoder.bias": state[prefix + "decoder.bias"]}
    torch.save({"encoder.weight": state[prefix + "encoder.0.weight"], "decoder.weight": decoder, **biases}, out)
    hf_world.repos["apollo-research/e2e-saes-gpt2"] = StoredRepo(
        {"local_similar_ce_layer_2.pt": out.getvalue()}, commit="713515193ec799fd17bd7f6ccf6f209332b07f7d"
    )
    mirror = load("paper:e2e/2/local/ce", "all")
    assert mirror.address is not None
    assert mirror.address.startswith("hf://apollo-research/e2e-saes-gpt2@713515")
    assert mirror.hook_point == "blocks.2.hook_resid_pre"
    raw = load(CHECKPOINTS / "e2e_sae_single", "all")
    assert (mirror.directions - raw.directions).abs().max() <= 1e-6, "the mirror's rows should already have unit norm"


def test_every_place_that_failed_is_listed_with_its_reason(wandb_world: Loopback, hf_world: HuggingFace) -> None:
    wandb_world.graphql_fault = status(503)
    with pytest.raises(SourceError, match=r"is not available from any source: .*503.*does not exist or is private"):
        load("paper:e2e/6/local/ce")


def test_a_run_without_a_mirror() -> None:
    assert mirrors_of("sparsify/gpt2/d8vgjnyc") == ()
    assert mirrors_of("sparsify/gpt2/1jy3m5j0")[0] == "hf://neuronpedia/gpt2-small__res_scl-ajt/6-res_scl-ajt"


def test_the_six_releases_without_the_package() -> None:
    place = saelens_address("gpt2-small-res_sce-ajt/blocks.10.hook_resid_pre")
    assert place == "hf://neuronpedia/gpt2-small__res_sce-ajt/10-res_sce-ajt"
    assert saelens_address("gpt2-small-res_sce-ajt/10-res_sce-ajt") == place
    with pytest.raises(AddressError, match=r"has no SAE 'x'; it has blocks.2"):
        saelens_address("gpt2-small-res_sce-ajt/x")
    with pytest.raises(AddressError, match=r"no release 'gemma'.*is not installed"):
        saelens_address("gemma/x")


def test_every_release_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sae_lens"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it takes ten seconds: do not')")
    (package / "pretrained_saes.yaml").write_text(
        "gemma-scope-2b-pt-res:\n  repo_id: google/gemma-scope-2b-pt-res\n  saes:\n"
        "  - {id: layer_0/width_16k/average_l0_105, path: layer_0/width_16k/average_l0_105, l0: 105}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    place = saelens_address("gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105")
    assert place == "hf://google/gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105"
    assert "sae_lens" not in sys.modules
