"""Tests of links to Neuronpedia: only where the pages are known, and never more than a quick list takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.sources import neuronpedia_lists


def at(address: str | None, **metadata: object) -> Dictionary:
    return Dictionary.from_decoder(np.eye(3), latent_axis=0, address=address, metadata=metadata)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("wandb:sparsify/gpt2/1jy3m5j0#samples_400000.pt", "gpt2-small/6-res_scl-ajt"),
        ("wandb:sparsify/gpt2/1jy3m5j0#samples_400000.pt::blocks.6.hook_resid_pre", "gpt2-small/6-res_scl-ajt"),
        ("wandb:sparsify/gpt2/2lzle2f0#samples_400000.pt", "gpt2-small/6-res_scefr-ajt"),
        ("hf://neuronpedia/gpt2-small__res_sce-ajt@abc/10-res_sce-ajt", "gpt2-small/10-res_sce-ajt"),
        ("hf://neuronpedia-org/gpt2-small__res_sce-ajt/10-res_sce-ajt/w.safetensors", "gpt2-small/10-res_sce-ajt"),
        ("hf://apollo-research/e2e-saes-gpt2@713515193e/local_similar_ce_layer_2.pt", "gpt2-small/2-res_scl-ajt"),
    ],
)
def test_the_papers_published_runs_have_pages(address: str, source: str) -> None:
    assert sg.neuronpedia_url(at(address), 7) == f"https://www.neuronpedia.org/{source}/7"


@pytest.mark.parametrize(
    "address",
    [
        None,
        "demo:local-seed0",
        "./samples_400000.pt",
        "wandb:sparsify/gpt2/1jy3m5j0#samples_200000.pt",  # another seed of the same run
        "wandb:sparsify/gpt2/d8vgjnyc#samples_400000.pt",  # another seed of it
        "hf://neuronpedia/gpt2-small__res_sce-ajt@abc/11-res_sce-ajt",
    ],
)
def test_others_have_none(address: str | None) -> None:
    assert sg.neuronpedia_url(at(address), 7) is None


def test_the_configuration_may_name_the_pages() -> None:
    assert sg.neuronpedia_url(at(None, neuronpedia_id="gpt2-small/0-res-jb"), 1) == (
        "https://www.neuronpedia.org/gpt2-small/0-res-jb/1"
    )
    for nonsense in ("0-res-jb", "a/b/c", "a/b?x=1", "", 5, True):
        assert sg.neuronpedia_url(at(None, neuronpedia_id=nonsense), 1) is None


def test_an_installed_sae_lens_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sae_lens"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it takes ten seconds: do not')")
    (package / "pretrained_saes.yaml").write_text(
        "some-release:\n  repo_id: org/repo\n  saes:\n"
        "  - {id: layer_0, path: layer_0/w, neuronpedia: gemma-2-2b/0-gemmascope-res-16k}\n"
        "  - {id: layer_1, path: layer_1/w}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    known = at("hf://org/repo@abc/layer_0/w", saelens="some-release/layer_0")
    assert sg.neuronpedia_url(known, 3) == "https://www.neuronpedia.org/gemma-2-2b/0-gemmascope-res-16k/3"
    assert sg.neuronpedia_url(at("hf://org/repo@abc/layer_1/w", saelens="some-release/layer_1"), 3) is None


def test_lists_hold_at_most_150_and_lose_nothing() -> None:
    known = at(None, neuronpedia_id="gpt2-small/0-res-jb")
    unknown = at("demo:local-seed0")
    links = neuronpedia_lists([(unknown, 0), *((known, i) for i in range(301)), (unknown, 9)], "region A & co")
    asked = [parse_qs(urlsplit(link).query, strict_parsing=True) for link in links]
    assert [q["name"] for q in asked] == [[f"region A & co {i} of 3"] for i in (1, 2, 3)]
    entries = [json.loads(q["features"][0]) for q in asked]
    assert [len(e) for e in entries] == [150, 150, 1]
    assert [int(e["index"]) for part in entries for e in part] == list(range(301))
    assert entries[0][0] == {"modelId": "gpt2-small", "layer": "0-res-jb", "index": "0"}
    assert neuronpedia_lists([(unknown, 0)], "x") == []
    assert "name=x&" in neuronpedia_lists([(known, 0)], "x")[0]
