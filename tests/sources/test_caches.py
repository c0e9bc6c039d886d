"""Tests that the cache holds what was fetched, and that fetching touches nothing of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import CHECKPOINTS
from hf_server import COMMIT, HuggingFace, StoredRepo
from typer.testing import CliRunner
from wandb_server import Loopback, StoredRun

from sae_geometry.cli import app
from sae_geometry.sources import SourceError, checksums, download, fetch, load
from sae_geometry.sources.huggingface.repo import _listing

RUN = "sparsify/gpt2/d8vgjnyc"
LAST = "samples_400000.pt"
STANDARD = CHECKPOINTS / "saelens_standard"
REPO = "neuronpedia/some-saes"
WEIGHTS = "6-res/sae_weights.safetensors"
ADDRESS = f"hf://{REPO}/6-res"


def flip(path: Path) -> None:
    """Flip one bit near the middle, and restore the modification time."""
    before = path.stat()
    with path.open("r+b") as f:
        f.seek(before.st_size // 2)
        byte = f.read(1)[0]
        f.seek(before.st_size // 2)
        f.write(bytes([byte ^ 4]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def hf(hf_world: HuggingFace) -> HuggingFace:
    names = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    hf_world.repos[REPO] = StoredRepo({f"6-res/{n}": (STANDARD / n).read_bytes() for n in names})
    return hf_world


@pytest.mark.parametrize("md5_told", [True, False])
@pytest.mark.parametrize("name", [LAST, "sae_weights.safetensors"])
def test_a_flipped_bit_in_the_cache_is_noticed_and_mended(wandb_world: Loopback, name: str, md5_told: bool) -> None:
    content = wandb_world.runs[RUN].files[LAST] if name == LAST else (STANDARD / name).read_bytes()
    wandb_world.runs[RUN] = StoredRun({}, {}, {name: content}, md5={} if md5_told else {name: None})
    path = fetch(RUN)[0].path
    whole = load(RUN, "all").fingerprint
    flip(path)
    for offline in (False, True):
        with pytest.raises(
            SourceError, match=f"is damaged: .*run `sae-geometry fetch wandb:{RUN}#{name}` to replace it"
        ):
            load(RUN, "all", offline=offline)
    with pytest.raises(SourceError, match="is damaged"):
        fetch(RUN, offline=True)
    assert CliRunner().invoke(app, ["fetch", f"wandb:{RUN}#{name}"]).exit_code == 0
    assert load(RUN, "all", offline=True).fingerprint == whole
    assert len(wandb_world.downloads(name)) == 2


def test_a_flipped_bit_in_a_record_of_the_cache_is_mended(wandb_world: Loopback, hf: HuggingFace) -> None:
    """If a name, value or checksum in the record was changed, the record must be fetched again."""
    record = fetch(RUN)[0].path.with_name("wandb_run.json")
    whole = load(RUN, "all")
    written = record.read_bytes()
    for part in (b"samples_400000.pt", b"seed", b"state", whole.name.encode(), b"sums", b"sha256"):
        record.write_bytes(written.replace(part, bytes([part[0] ^ 1]) + part[1:], 1))
        assert record.read_bytes() != written
        again = load(RUN, "all")
        assert (again.fingerprint, again.name, again.metadata) == (whole.fingerprint, whole.name, whole.metadata)
    load(ADDRESS, "all")
    listing = _listing(REPO, COMMIT)
    written = listing.read_bytes()
    listing.write_bytes(written.replace(b"sparsity", b"rparsity"))
    load(ADDRESS, "all")
    assert listing.read_bytes() == written


def test_a_run_that_goes_on_is_mended_too(wandb_world: Loopback) -> None:
    wandb_world.runs[RUN].state = "running"
    path = fetch(RUN)[0].path
    flip(path)
    assert load(RUN).n_latents == 240
    path.write_bytes(path.read_bytes()[:-5])
    assert load(RUN).n_latents == 240


def test_force_fetches_what_is_there(wandb_world: Loopback, hf: HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, server, name in ((RUN, wandb_world, LAST), (ADDRESS, hf, WEIGHTS)):
        for n, words in enumerate(([], [], ["--force"], [])):
            assert CliRunner().invoke(app, ["fetch", address, *words]).exit_code == 0
            assert len(server.downloads(name)) == (1 if n < 2 else 2)
        result = CliRunner().invoke(app, ["fetch", address, "--force", "--offline"])
        assert result.exit_code == 2
        assert "use only one of the two" in result.stderr


def test_a_file_is_read_for_its_checksum_once(
    wandb_world: Loopback, hf: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = checksums.checksum

    def counted(path: Path, **how: str) -> str:
        read.append(path)
        return original(path, **how)

    for address in (RUN, ADDRESS):
        path = fetch(address)[0].path
        load(address)
        with monkeypatch.context() as m:
            m.setattr(checksums, "checksum", counted)
            load(address)
            assert read == []
            path.resolve().touch()
            load(address)
            assert [p.resolve() for p in read] == [path.resolve()]
            read.clear()


def test_a_file_of_the_user_s_own_in_the_hugging_face_cache_is_left_alone(hf: HuggingFace, tmp_path: Path) -> None:
    load(ADDRESS)
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"years of work")
    snapshot = next((tmp_path / "hf").rglob("sae_weights.safetensors"))
    snapshot.unlink()
    snapshot.symlink_to(own)
    for offline in (False, True):
        with pytest.raises(SourceError, match="checksum differs from the recorded one"):
            load(ADDRESS, offline=offline)
    for force in (False, True):
        with pytest.raises(SourceError, match=f"{snapshot} is not a link to a cached blob: remove this file"):
            fetch(ADDRESS, force=force)
    assert snapshot.readlink() == own
    assert own.read_bytes() == b"years of work"
    snapshot.unlink()
    fetch(ADDRESS)
    assert load(ADDRESS).n_latents == 232


def test_a_damaged_file_of_the_hugging_face_cache_is_not_deleted(hf: HuggingFace, tmp_path: Path) -> None:
    load(ADDRESS)
    flip(next((tmp_path / "hf").rglob("sae_weights.safetensors")).resolve())
    before = {p: p.stat().st_ino for p in (tmp_path / "hf").rglob("*")}
    for _ in range(2):
        with pytest.raises(SourceError, match="checksum differs from the recorded one"):
            load(ADDRESS)
    assert {p: p.stat().st_ino for p in (tmp_path / "hf").rglob("*")} == before
    fetch(ADDRESS)
    assert load(ADDRESS, offline=True).n_latents == 232


@pytest.mark.parametrize("where", ["listing", "partial", "record", "verified"])
def test_links_in_the_place_of_our_own_files_are_not_followed(
    where: str, hf: HuggingFace, wandb_world: Loopback, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"years of work")

    def plant(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(own)
        return path

    partial_for = download._partial_for
    match where:
        case "listing":
            plant(_listing(REPO, COMMIT))
        case "partial":
            monkeypatch.setattr(download, "_partial_for", lambda *a: plant(partial_for(*a)))
        case "record":
            for half in ("wandb_run.json", "wandb_run.partial"):
                plant(next(iter([fetch(RUN)[0].path.with_name(half)])))
        case "verified":
            assert load(RUN).n_latents == load(RUN).n_latents
            for marker in (cache / "verified").iterdir():
                plant(marker)
    assert load(RUN).n_latents == 240
    assert load(ADDRESS).n_latents == 232
    assert own.read_bytes() == b"years of work"


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize(
    "value", ['"../../../evil"', "/tmp/safe-evil", '"..\\\\evil"', '".."', 'W/"a/b"', '"a b"', "x" * 300]
)
def test_names_that_a_server_gives_to_blobs_lead_nowhere_else(
    header: str, value: str, hf: HuggingFace, tmp_path: Path
) -> None:
    content = hf.repos[REPO].files[WEIGHTS]

    def lying(h: object, _: bytes) -> None:
        said = {"ETag": '"abc"', "X-Linked-Etag": '"abc"', "X-Repo-Commit": COMMIT, header: value}
        h.send_response(200)  # type: ignore[attr-defined]
        for name, text in {**said, "Content-Length": len(content), "X-Linked-Size": len(content)}.items():
            h.send_header(name, str(text))  # type: ignore[attr-defined]
        h.end_headers()  # type: ignore[attr-defined]

    hf.head_fault = lying
    before = set(tmp_path.rglob("*evil*"))
    with pytest.raises(SourceError, match="sent a blob or commit named"):
        load(ADDRESS)
    assert set(tmp_path.rglob("*evil*")) == before
    assert not Path("/tmp/safe-evil").exists()
