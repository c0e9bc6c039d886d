"""Tests of branches with slashes, dataset repositories, and the Hugging Face client's cache in every state."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers import CHECKPOINTS
from hf_server import COMMIT, HuggingFace, StoredRepo

from sae_geometry.sources import SourceError, load

STANDARD = CHECKPOINTS / "saelens_standard"
FILES = {f"6-res/{n}": (STANDARD / n).read_bytes() for n in ("cfg.json", "sae_weights.safetensors")}


@pytest.fixture
def world(hf_world: HuggingFace) -> HuggingFace:
    hf_world.repos["a/b"] = StoredRepo(dict(FILES), small={"6-res/cfg.json"}, branches=("refs/pr/3", "my/branch"))
    hf_world.repos["datasets/a/b"] = StoredRepo(dict(FILES), small={"6-res/cfg.json"}, commit="d" * 40)
    return hf_world


@pytest.fixture
def folder(world: HuggingFace, tmp_path: Path) -> Path:
    """Return the cache folder of a repository that was fetched."""
    load("hf://a/b/6-res")
    return tmp_path / "hf" / "hub" / "models--a--b" if (tmp_path / "hf" / "hub").is_dir() else next(
        tmp_path.rglob("models--a--b"))  # fmt: skip


@pytest.mark.parametrize(
    "address",
    ["hf://a/b@refs/pr/3/6-res", "https://huggingface.co/a/b/tree/refs%2Fpr%2F3/6-res",
     "https://huggingface.co/a/b/blob/my%2Fbranch/6-res/sae_weights.safetensors"],
)  # fmt: skip
def test_a_revision_is_kept_whole(world: HuggingFace, address: str) -> None:
    d = load(address)
    assert (d.address, d.hook_point) == (f"hf://a/b@{COMMIT}/6-res/sae_weights.safetensors", "blocks.6.hook_resid_pre")
    assert load(address, offline=True).fingerprint == d.fingerprint


@pytest.mark.parametrize("address", ["hf://datasets/a/b/6-res", "https://huggingface.co/datasets/a/b/tree/main/6-res"])
def test_a_dataset_repository_is_not_the_model_of_that_name(world: HuggingFace, address: str) -> None:
    d = load(address)
    assert d.address == f"hf://datasets/a/b@{'d' * 40}/6-res/sae_weights.safetensors"
    assert load(address, offline=True).fingerprint == d.fingerprint
    with pytest.raises(SourceError, match="not in the Hugging Face cache"):
        load("hf://a/b/6-res", offline=True)


def test_a_cache_that_does_not_say_which_commit_is_main(folder: Path) -> None:
    shutil.rmtree(folder / "refs")
    d = load("hf://a/b/6-res", offline=True)
    assert any("the cache does not record which commit is main" in note for note in d.notes)
    shutil.copytree(folder / "snapshots" / COMMIT, folder / "snapshots" / ("e" * 40), symlinks=True)
    with pytest.raises(SourceError, match=r"has 2 commits of a/b .*: write hf://a/b@ with one of aaaa"):
        load("hf://a/b/6-res", offline=True)
    assert load(f"hf://a/b@{COMMIT}/6-res", offline=True).fingerprint == d.fingerprint


def test_the_folder_of_a_repository_in_the_cache_is_its_main_commit(folder: Path) -> None:
    shutil.copytree(folder / "snapshots" / COMMIT, folder / "snapshots" / ("e" * 40), symlinks=True)
    assert load(folder).name == "6-res"
    shutil.rmtree(folder / "refs")
    with pytest.raises(SourceError, match="has 2 commits and does not record which is main"):
        load(folder)
    shutil.rmtree(folder / "snapshots" / ("e" * 40))
    flat = load(folder)
    assert flat.hook_point == "blocks.6.hook_resid_pre"


def test_a_commit_is_no_name(tmp_path: Path) -> None:
    place = tmp_path / "models--me--my-saes" / "snapshots" / COMMIT
    place.mkdir(parents=True)
    (place / "sae_weights.safetensors").write_bytes(FILES["6-res/sae_weights.safetensors"])
    assert load(place / "sae_weights.safetensors").name == "my-saes"


def test_a_link_to_nothing_is_said(folder: Path) -> None:
    link = folder / "snapshots" / COMMIT / "6-res" / "sae_weights.safetensors"
    if not link.is_symlink():
        pytest.skip("this system makes copies, not links")
    link.resolve().unlink()
    with pytest.raises(SourceError, match=r"is a link in the Hugging Face cache to a file that no longer .*--offline"):
        load("hf://a/b/6-res", offline=True)
    for place in (link, link.parent, folder):
        with pytest.raises(SourceError, match=r"is a link to .*which does not exist: fetch the file again"):
            load(place)
    assert load("hf://a/b/6-res").n_latents > 0, "it should be fetched again online"


def test_a_reference_that_never_ends_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b"
    (folder / "refs").mkdir(parents=True)
    for commit in ("c" * 40, "e" * 40):
        shutil.copytree(STANDARD, folder / "snapshots" / commit)
    reference = folder / "refs" / "main"
    made = (lambda: os.mkfifo(reference), lambda: reference.symlink_to("/dev/zero"), lambda: reference.write_bytes(
        b"c" * 5_000))  # fmt: skip
    for make in made:
        make()
        with pytest.raises(SourceError, match="2 commits and does not record which is main"):
            load(folder)
        reference.unlink()
    reference.write_text("e" * 40)
    assert "e" * 40 in (load(folder).address or "")
