"""Tests of Hugging Face through its real client, against a loopback server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import CHECKPOINTS
from hf_server import COMMIT, HuggingFace, StoredRepo
from wandb_server import Fault, Loopback, cut_short, redirect, silent, stalling, status

from sae_geometry.comparisons.nearest import nearest
from sae_geometry.sources import LayoutError, SourceError, fetch, load
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.listing import checkpoints_at

WEIGHTS = "6-res/sae_weights.safetensors"
STANDARD = CHECKPOINTS / "saelens_standard"
REPO = "neuronpedia/some-saes"
FILES = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
ADDRESS = f"hf://{REPO}/6-res"


@pytest.fixture
def world(hf_world: HuggingFace) -> HuggingFace:
    files = {f"6-res/{n}": (STANDARD / n).read_bytes() for n in FILES}
    files |= {f"10-res/{n}": (STANDARD / n).read_bytes()[::-1] for n in FILES}
    hf_world.repos[REPO] = StoredRepo(files, small={"6-res/cfg.json", "10-res/cfg.json"})
    return hf_world


def asked(world: HuggingFace) -> list[str]:
    return [f"{method} {path}" for method, path, _ in world.requests]


def test_a_repository_stands_for_its_dictionaries(world: HuggingFace) -> None:
    """Resolve every folder at one commit without reading weights; a search names the damaged one and skips it."""
    found = checkpoints_at(f"hf://{REPO}", Context())
    assert found == [f"hf://{REPO}@{COMMIT}/{layer}-res/sae_weights.safetensors" for layer in (6, 10)]
    assert not [line for line in asked(world) if "safetensors" in line]
    assert checkpoints_at(ADDRESS, Context()) == [ADDRESS]
    rows = np.load(STANDARD / "expected_decoder.npy")
    said: list[str] = []
    searched = nearest(rows[3], f"hf://{REPO}", 1, turns=0, latents="all", echo=said.append)
    assert len(said) == len(set(said)) > 2, "each dictionary should be resolved once"
    assert searched.latent_id.tolist() == [[3]]
    assert [d["address"] for d in searched.searched] == found[:1]
    assert "10-res" in searched.skipped[0]
    with pytest.raises(SourceError, match="does not exist"):
        checkpoints_at(f"hf://{REPO}/nothing", Context())


def test_a_folder_is_read_with_its_side_files_at_a_pinned_commit(world: HuggingFace) -> None:
    said: list[str] = []
    d = load(ADDRESS, "all", echo=said.append)
    assert np.abs(d.directions.numpy() - np.load(STANDARD / "expected_decoder.npy")).max() <= 1e-6
    assert d.address == f"hf://{REPO}@{COMMIT}/6-res/sae_weights.safetensors"
    assert (d.name, d.hook_point, d.model) == ("6-res", "blocks.6.hook_resid_pre", "gpt2-small")
    assert d.alive.n_dead == 24
    assert d.metadata["commit"] == COMMIT
    assert any(COMMIT[:12] in line for line in said)
    assert not any("10-res" in line for line in asked(world)), "only the needed files should be fetched"


def test_a_pinned_commit_in_the_cache_costs_no_request(world: HuggingFace) -> None:
    first = load(f"hf://{REPO}@{COMMIT}/6-res")
    n = len(world.requests)
    assert load(f"hf://{REPO}@{COMMIT}/6-res").fingerprint == first.fingerprint
    assert len(world.requests) == n


def test_weights_that_another_tool_fetched_alone_still_get_their_side_files(world: HuggingFace) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, WEIGHTS, revision=COMMIT)
    assert load(f"hf://{REPO}@{COMMIT}/6-res").alive.n_dead == 24


def test_offline_reads_the_cache_and_says_what_is_missing(world: HuggingFace) -> None:
    with pytest.raises(SourceError, match="not in the Hugging Face cache"):
        load(ADDRESS, offline=True)
    assert asked(world) == []
    load(ADDRESS)
    n = len(world.requests)
    assert load(ADDRESS, offline=True).n_latents == 232
    with pytest.raises(SourceError, match="not in the Hugging Face cache"):
        load(f"hf://{REPO}/10-res", offline=True)
    assert len(world.requests) == n


def test_a_pasted_url_is_the_same_place(world: HuggingFace) -> None:
    url = f"https://huggingface.co/{REPO}/blob/main/6-res/sae_weights.safetensors"
    assert load(url).fingerprint == load(ADDRESS).fingerprint


def test_a_flipped_byte_is_found_and_mended_by_fetching(world: HuggingFace) -> None:
    def flipped(h: object, content: bytes) -> None:
        wrong = bytearray(content)
        wrong[-5] ^= 1
        h.send_content(bytes(wrong))  # type: ignore[attr-defined]

    world.faults[WEIGHTS] = flipped
    with pytest.raises(SourceError, match="checksum differs from the recorded one"):
        load(ADDRESS)
    del world.faults[WEIGHTS]
    for offline in (False, True):
        with pytest.raises(
            SourceError,
            match=r"checksum differs from the recorded one; run `sae-geometry fetch hf://.* to replace the file",
        ):
            load(f"hf://{REPO}@{COMMIT}/6-res", offline=offline)
    fetch(ADDRESS)
    assert load(ADDRESS).n_latents == 232


def test_a_plain_git_file_is_verified_too(world: HuggingFace) -> None:
    world.faults["6-res/cfg.json"] = lambda h, content: h.send_content(content.replace(b"256", b"652"))
    with pytest.raises(SourceError, match="checksum differs from the recorded one"):
        load(ADDRESS)


def test_the_token_goes_to_no_other_host(world: HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    cdn = Loopback()
    try:
        content = (STANDARD / "sae_weights.safetensors").read_bytes()
        cdn.runs["a/b/c"] = type("Run", (), {"files": {"w": content}})()
        # This other name of the same machine is another origin in every respect.
        world.faults[WEIGHTS] = redirect(cdn.url.replace("127.0.0.1", "localhost") + "/files/a/b/c/w")
        assert load(ADDRESS).n_latents == 232
        assert cdn.requests
        assert not any("authorization" in headers for _, _, headers in cdn.requests)
        assert any("hf_secret" in h.get("authorization", "") for _, _, h in world.requests)
    finally:
        cdn.close()


def test_of_a_transcoder_of_many_layers_only_the_one_meant_is_fetched(hf_world: HuggingFace) -> None:
    folder = CHECKPOINTS / "mntss_clt"
    names = [f"W_{half}_{i}.safetensors" for half in ("dec", "enc") for i in range(3)]
    files = {f"clt/{n}": (folder / n).read_bytes() for n in [*names, "config.yaml"]}
    hf_world.repos["mntss/clt"] = StoredRepo(files)
    with pytest.raises(LayoutError, match="choose one by adding ::source=0, ::source=1, ::source=2"):
        load("hf://mntss/clt/clt")
    d = load("hf://mntss/clt/clt::source=1", "all")
    assert np.abs(d.directions.numpy() - np.load(folder / "expected_decoder.npy")).max() <= 1e-6
    fetched = {line.rpartition("/")[2] for line in asked(hf_world) if line.startswith("GET") and "resolve" in line}
    assert fetched == {"W_dec_1.safetensors", "W_enc_1.safetensors", "config.yaml"}
    assert (
        load("hf://mntss/clt/clt/W_dec_1.safetensors").fingerprint == load("hf://mntss/clt/clt::source=1").fingerprint
    )


def test_the_client_s_own_offline_switch_is_ours(world: HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="not in the Hugging Face cache"):
        load(ADDRESS)
    assert world.requests == []


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ((401, "RepoNotFound"), "does not exist or is private"),
        ((403, "GatedRepo"), "is gated: accept its terms"),
        ((404, "RevisionNotFound"), "no revision"),
    ],
)
def test_refusals_are_explained(world: HuggingFace, refusal: tuple[int, str], sentence: str) -> None:
    world.repos[REPO].refuse = refusal
    with pytest.raises(SourceError, match=sentence):
        load(ADDRESS)


def test_a_path_that_is_not_there_names_those_that_are(world: HuggingFace) -> None:
    with pytest.raises(SourceError, match=r"does not exist; the repository has 10-res/sae_weights.safetensors"):
        load(f"hf://{REPO}/7-res")


def test_a_repository_with_several_asks_which(world: HuggingFace) -> None:
    with pytest.raises(SourceError, match="contains 2 weights files"):
        load(f"hf://{REPO}")


@pytest.mark.parametrize(
    ("where", "fault", "sentence"),
    [
        ("api", status(500), "the server failed"),
        ("api", status(503), "the server failed"),
        ("api", status(429), "too many requests"),
        ("api", silent, "no response in time"),
        ("head", silent, "no "),
        ("head", status(503), "no complete response|the server failed|the connection was lost"),
        ("file", status(500), "the server failed"),
        ("file", status(503), "the server failed"),
        ("file", status(429), "too many requests|no complete response"),
        ("file", status(403), "permission denied"),
        ("file", cut_short(), "no complete response"),
        ("file", cut_short(tell_length=False), "was lost"),
        ("file", stalling, "no complete response"),
        ("file", silent, "no "),
    ],
)
def test_misbehaviour_is_one_sentence_in_bounded_time(
    world: HuggingFace, tmp_path: Path, where: str, fault: Fault, sentence: str
) -> None:
    if where == "api":
        world.api_fault = fault
    elif where == "head":
        world.head_fault = fault
    else:
        world.faults[WEIGHTS] = fault
    start = time.monotonic()
    with pytest.raises(SourceError, match=sentence) as caught:
        load(ADDRESS)
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    world.api_fault = world.head_fault = None
    world.faults.clear()
    assert load(ADDRESS).n_latents == 232


def test_a_download_that_broke_off_is_tried_again(world: HuggingFace) -> None:
    world.faults[WEIGHTS] = cut_short(times=1)
    assert load(ADDRESS).n_latents == 232
    assert len(world.downloads(WEIGHTS)) == 2


def test_an_unreachable_server(world: HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="connection refused"):
        load(ADDRESS)


def threads_of_tqdm() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "tqdm" in type(thread).__module__]


def test_fetch_tells_where_the_files_are(world: HuggingFace) -> None:
    shares: list[float] = []
    before = threads_of_tqdm()
    files = fetch(ADDRESS, progress=lambda _, share: shares.append(share))
    assert threads_of_tqdm() == before
    assert [f.path.name for f in files] == ["sae_weights.safetensors", "cfg.json", "sparsity.safetensors"]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_a_name_that_leads_elsewhere_is_refused(world: HuggingFace, tmp_path: Path) -> None:
    world.repos[REPO].files = {"x/../../evil.safetensors": (STANDARD / "sae_weights.safetensors").read_bytes()}
    with pytest.raises(SourceError, match="not a plain relative path; refused"):
        load(f"hf://{REPO}")
    assert not list(tmp_path.rglob("*evil*"))
