"""Tests of Weights & Biases against a loopback server, with a key and without."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import real_run
from helpers import E2E, KEY, tree
from wandb_server import Fault, Loopback, StoredRun, cut_short, redirect, silent, stalling, status

from sae_geometry.sources import SourceError, cached_runs, clear_cache, download, fetch, load, runs, similar_runs

RUN = "sparsify/gpt2/d8vgjnyc"
LAST = "samples_400000.pt"


@pytest.fixture(params=["keyless", "with a key"])
def world(request: pytest.FixtureRequest, wandb_world: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Return the same server, with a key and without."""
    if request.param == "with a key":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    return wandb_world


def expected_directions() -> np.ndarray:
    return np.asarray(np.load(E2E / "expected_decoder.npy"))


def test_a_run_is_its_last_checkpoint_with_what_it_says(world: Loopback) -> None:
    said: list[str] = []
    shares: list[float] = []
    d = load(f"wandb:{RUN}", "all", echo=said.append, progress=lambda _, share: shares.append(share))
    assert np.abs(d.directions.numpy() - expected_directions()).max() <= 1e-6
    assert d.address == f"wandb:{RUN}#{LAST}"
    assert any(f"#{LAST}" in line for line in said)
    assert (d.alive.n_dead, d.alive.source) == (16, f"the summary of W&B run {RUN}")
    assert d.metadata["kind"] == "local"
    assert d.metadata["seed"] == 1
    assert d.metadata["l0"] == pytest.approx(101.458, abs=1e-3)
    assert d.metadata["ce_increase"] == pytest.approx(0.14)
    assert d.metadata["alive"] == 240
    assert shares[-1] == 1.0


def test_alive_latents_keep_their_ids(world: Loopback) -> None:
    d = load(f"wandb:{RUN}")
    assert d.n_latents == 240
    assert {0, 17, 34} & set(d.latent_ids.tolist()) == set()


def test_every_spelling_is_one_place(world: Loopback) -> None:
    one = load(f"wandb:{RUN}")
    for spelling in (RUN, f"https://wandb.ai/sparsify/gpt2/runs/{RUN[-8:]}?nw=x", f"mine=wandb:{RUN}#{LAST}"):
        other = load(spelling)
        assert (other.fingerprint, other.address) == (one.fingerprint, one.address)
        assert other.metadata["address_as_typed"] == spelling


def test_a_finished_run_in_the_cache_costs_no_request(world: Loopback) -> None:
    load(f"wandb:{RUN}")
    n = len(world.requests)
    assert load(f"wandb:{RUN}").n_latents == load(f"wandb:{RUN}", offline=True).n_latents == 240
    assert len(world.requests) == n


def test_another_checkpoint_in_the_cache_is_not_taken_for_the_last(world: Loopback) -> None:
    world.runs[RUN].files["samples_50000.pt"] = world.runs[RUN].files[LAST]
    load(f"wandb:{RUN}#samples_50000.pt")
    assert load(f"wandb:{RUN}#samples_50000.pt", offline=True).n_latents == 240
    with pytest.raises(SourceError, match="not in the cache"):
        load(f"wandb:{RUN}", offline=True)
    assert load(f"wandb:{RUN}").address == f"wandb:{RUN}#{LAST}"


def test_a_run_that_goes_on_is_asked_again(world: Loopback) -> None:
    world.runs[RUN].state = "running"
    load(f"wandb:{RUN}")
    world.runs[RUN].files["samples_500000.pt"] = world.runs[RUN].files[LAST]
    assert load(f"wandb:{RUN}").address == f"wandb:{RUN}#samples_500000.pt"


def test_offline_touches_no_network(world: Loopback) -> None:
    with pytest.raises(SourceError, match="not in the cache"):
        load(f"wandb:{RUN}", offline=True)
    assert world.requests == []


def test_many_pages_of_files_and_a_long_alive_list(world: Loopback) -> None:
    run = world.runs[RUN]
    run.files.update({f"media/images/{i}.png": b"p" for i in range(330)})
    hook = "blocks.2.hook_resid_pre"
    run.summary = {**run.summary, f"sparsity/alive_dict_elements_indices_final/{hook}": list(range(0, 46080, 2))}
    with pytest.raises(SourceError, match="latent 46,078 is alive, but there are only 256"):
        load(f"wandb:{RUN}")
    run.state = "running"
    clear_cache()
    run.summary[f"sparsity/alive_dict_elements_indices_final/{hook}"] = [5] * 23040
    assert load(f"wandb:{RUN}").latent_ids.tolist() == [5]


def test_one_file_by_name(world: Loopback) -> None:
    with pytest.raises(SourceError, match=r"has no file 'samples_1.pt'; it has samples_50000.pt, samples_400000.pt"):
        load(f"wandb:{RUN}#samples_1.pt")
    with pytest.raises(SourceError, match=r"samples_50000.pt is not safetensors, a torch checkpoint"):
        load(f"wandb:{RUN}#samples_50000.pt")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (status(401), r"not signed in \(401\)"),
        (status(403), r"permission denied \(403\)"),
        (status(404), r"not found \(404\)"),
        (status(429), r"too many requests \(429\)"),
        (status(500), r"the server failed \(500\)"),
        (status(503), r"the server failed \(503\)"),
        (cut_short(), "was lost"),
        (cut_short(tell_length=False), "was lost"),
        (silent, "no response in time"),
        (stalling, "sent nothing for"),
        (lambda h, c: h.reply(c[:-7]), "was lost|arrived with"),
        (lambda h, c: h.reply(c[:-1] + b"x"), "MD5 is not the server's"),
        (lambda h, c: h.reply(c + b"more"), "exceeds its limit"),
        (lambda h, c: h.reply(b"<html>log in</html>" + c[19:]), "MD5 is not the server's"),
        (lambda h, c: h.reply(c, Content_Encoding="gzip"), "compressed its response"),
        (lambda h, c: h.reply(b"", 302, Location="file:///etc/passwd"), "redirects to"),
        (lambda h, c: h.reply(b"", 302, Location=h.path), "redirected more than"),
    ],
)
def test_a_bad_download_is_one_sentence_and_an_unchanged_cache(
    wandb_world: Loopback, cache: Path, fault: Fault, sentence: str
) -> None:
    wandb_world.faults[LAST] = fault
    before = tree(cache)
    start = time.monotonic()
    with pytest.raises(SourceError, match=sentence) as caught:
        load(f"wandb:{RUN}")
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert tree(cache) == before
    wandb_world.faults.clear()
    assert load(f"wandb:{RUN}").n_latents == 240


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (status(401), "key"),
        (status(403), "key"),
        (status(404), "not found|found nothing"),
        (status(429), r"too many requests \(429\)"),
        (status(500), r"the server failed \(500\)"),
        (status(503), r"the server failed \(503\)"),
        (silent, "no response in time"),
        (lambda h, _: h.reply(b"<html>log in</html>", kind="text/html"), "web page|invalid character '<'"),
        (lambda h, _: h.reply(b'{"errors": [{"message": "permission denied"}]}'), "W&B"),
        (lambda h, _: h.reply(b'{"data": {"project": null}}'), "W&B"),
        (lambda h, _: h.reply(b"[]"), "not a JSON object|W&B"),
    ],
)
def test_a_bad_answer_is_one_sentence_and_an_unchanged_cache(
    wandb_world: Loopback, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, sentence: str, key: bool
) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb_world.graphql_fault = fault
    start = time.monotonic()
    with pytest.raises(SourceError, match=sentence) as caught:
        load(f"wandb:{RUN}")
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert tree(cache) == {}


def test_an_unreachable_server(world: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(SourceError, match="connection refused"):
        load(f"wandb:{RUN}")
    assert time.monotonic() - start < 15


def test_a_private_run_says_how_to_sign_in_and_names_the_mirror(wandb_world: Loopback) -> None:
    del wandb_world.runs[RUN]
    with pytest.raises(SourceError, match="WANDB_API_KEY") as caught:
        load("wandb:sparsify/gpt2/1jy3m5j0")
    assert "hf://neuronpedia/gpt2-small__res_scl-ajt/6-res_scl-ajt" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../evil.pt", "a/../../evil.pt", "/tmp/evil.pt", "a\\..\\..\\evil.pt", "con.pt", "x\n.pt"]
)
def test_a_name_that_leads_elsewhere_is_refused(wandb_world: Loopback, cache: Path, name: str) -> None:
    good = wandb_world.runs[RUN].files[LAST]
    wandb_world.runs[RUN] = StoredRun({}, {}, {name: good})
    before = tree(cache.parent)
    with pytest.raises(SourceError, match=r"not a plain relative path; refused|no weights"):
        load(f"wandb:{RUN}")
    with pytest.raises(SourceError):
        load(f"wandb:{RUN}#{name}")
    assert tree(cache.parent) == before


def test_a_broken_download_is_continued_where_it_stopped(wandb_world: Loopback) -> None:
    wandb_world.faults[LAST] = cut_short(times=1)
    assert load(f"wandb:{RUN}").n_latents == 240
    ranges = [h.get("range") for h in wandb_world.downloads(LAST)]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert ranges[1].startswith("bytes=")


def test_a_download_given_up_is_continued_the_next_time(wandb_world: Loopback) -> None:
    wandb_world.faults[LAST] = cut_short(share=0.3, times=1)
    size = len(wandb_world.runs[RUN].files[LAST])
    calls = 0

    def once_then_down(h: object, content: bytes) -> None:
        nonlocal calls
        calls += 1
        (cut_short() if calls == 1 else status(503))(h, content)  # type: ignore[arg-type]

    wandb_world.faults[LAST] = once_then_down
    with pytest.raises(SourceError, match="503"):
        load(f"wandb:{RUN}")
    wandb_world.faults.clear()
    assert load(f"wandb:{RUN}").n_latents == 240
    start = int(str(wandb_world.downloads(LAST)[-1]["range"]).removeprefix("bytes=").rstrip("-"))
    assert 0 < start < size


def test_unknown_sizes_and_checksums(wandb_world: Loopback) -> None:
    run = wandb_world.runs[RUN]
    run.md5[LAST] = None
    run.size[LAST] = None
    wandb_world.faults[LAST] = cut_short(tell_length=False)
    with pytest.raises(SourceError, match="truncated zip archive"):
        load(f"wandb:{RUN}")
    assert not any(LAST in f for r in cached_runs() for f in r.files)
    wandb_world.faults.clear()
    assert load(f"wandb:{RUN}").n_latents == 240


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, the disk that is always full")
def test_a_disk_that_fills_up_is_one_sentence(wandb_world: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_no_link", lambda path, flags: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(SourceError, match=r"no space left on device in the cache .*; free some space, or set SAE_GEOM"):
        load(f"wandb:{RUN}")
    assert not list(download.cache_root().rglob("*.pt"))


def test_the_key_goes_to_the_configured_host_only(
    wandb_world: Loopback, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    bucket = Loopback()
    try:
        bucket.runs = wandb_world.runs
        target = bucket.url.replace("127.0.0.1", "localhost") + f"/files/{RUN}/{LAST}"
        wandb_world.faults[LAST] = redirect(target)
        said: list[str] = []
        assert load(f"wandb:{RUN}", echo=said.append).n_latents == 240
        token = base64.b64encode(f"api:{KEY}".encode()).decode()
        assert bucket.requests
        assert not any("authorization" in h for _, _, h in bucket.requests)
        assert any(token in h.get("authorization", "") for _, _, h in wandb_world.requests)
        clear_cache()
        wandb_world.faults.clear()
        wandb_world.files_elsewhere = bucket.url
        load(f"wandb:{RUN}")
        assert not any("authorization" in h for _, _, h in bucket.requests), "another port should count as another host"
        written = b"".join(tree(cache.parent).values()) + " ".join(said).encode() + caplog.text.encode()
        assert KEY.encode() not in written
        assert token.encode() not in written
    finally:
        bucket.close()


def test_a_key_in_netrc_is_found(wandb_world: Loopback, tmp_path: Path) -> None:
    host = wandb_world.url.removeprefix("http://")
    (tmp_path / "home" / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert load(f"wandb:{RUN}").n_latents == 240
    assert all("authorization" in h for _, _, h in wandb_world.requests)


def test_without_a_key_nothing_is_sent(wandb_world: Loopback) -> None:
    load(f"wandb:{RUN}")
    assert not any("authorization" in h for _, _, h in wandb_world.requests)


def test_the_record_and_the_alive_list_lie_beside_the_weights(wandb_world: Loopback) -> None:
    files = fetch(f"wandb:{RUN}")
    assert files[0].path.name == LAST
    folder = files[0].path.parent
    copy = load(folder)
    assert copy.fingerprint == load(f"wandb:{RUN}").fingerprint, "the folder should be a complete checkpoint"
    assert (copy.model, copy.metadata["kind"]) == ("tiny", "local")
    (run,) = cached_runs()
    assert set(run.files) == {LAST, "final_config.yaml", "wandb_run.json"}
    assert clear_cache(RUN) == run.n_bytes
    assert cached_runs() == ()
    with pytest.raises(SourceError, match="the cache does not contain run"):
        clear_cache(RUN)


def project(world: Loopback) -> None:
    """Publish nine runs of three kinds at two layers."""
    losses = {
        "local": {"logits_kl": None, "in_to_orig": None},
        "e2e": {"logits_kl": {"coeff": 0.5}, "in_to_orig": None},
        "e2e+ds": {"logits_kl": {"coeff": 0.5}, "in_to_orig": {"total_coeff": 2.5}},
    }
    world.runs.clear()
    for k, (kind, loss) in enumerate(losses.items()):
        for i, (layer, ce, l0) in enumerate([(6, 0.10 + k / 100, 20 + k), (6, 0.30, 10 * (k + 1)), (2, 0.1, 21)]):
            hook = f"blocks.{layer}.hook_resid_pre"
            world.runs[f"sparsify/gpt2/{kind.replace('+', '')}{i}"] = StoredRun(
                {"loss": loss, "seed": k, "saes": {"sae_positions": [hook]}},
                {
                    f"sparsity/eval/L_0/{hook}": l0,
                    "performance/eval/difference_ce_loss": -ce,
                    f"sparsity/alive_dict_elements_final/{hook}": 100 + l0,
                },
                {},
            )


def test_runs_are_listed_by_kind_and_paired_as_the_paper_pairs_them(world: Loopback) -> None:
    project(world)
    world.runs.update({f"sparsify/gpt2/zz{i:03}": StoredRun({}, {}, {}) for i in range(120)})
    listed = runs("sparsify/gpt2")
    assert len(listed) == 129
    assert [r.address[-5:] for r in runs("sparsify/gpt2", kind="e2e", layer=6)] == ["/e2e1", "/e2e0"]
    local = runs("wandb:sparsify/gpt2", kind="local", layer=6)
    assert [(r.l0, r.seed, r.alive) for r in local] == [(10.0, 0, 110), (20.0, 0, 120)]
    assert [r.ce_increase for r in local] == pytest.approx([0.30, 0.10])
    by_ce = similar_runs("sparsify/gpt2/local0", listed, by="ce")
    assert [r.address.rpartition("/")[2] for r in by_ce] == ["local0", "e2e0", "e2eds0"]
    highest = similar_runs("local1", listed, by="ce")  # The nearest run is not the lowest one.
    assert [r.address.rpartition("/")[2] for r in highest] == ["local1", "e2e1", "e2eds1"]
    by_l0 = similar_runs("local1", listed, by="l0")
    assert [r.address.rpartition("/")[2] for r in by_l0] == ["local1", "e2e1", "e2eds0"]
    with pytest.raises(SourceError, match="matches none of 129 listed runs"):
        similar_runs("nothing", listed)


def test_a_project_that_is_not_there(world: Loopback) -> None:
    with pytest.raises(SourceError, match="no runs"):
        runs("nobody/nothing")
    with pytest.raises(SourceError, match="write entity/project"):
        runs("one")


def test_two_hooks_in_one_run(wandb_world: Loopback) -> None:
    run = real_run()
    run.config["saes"] = {"sae_positions": ["blocks.2.hook_resid_pre", "blocks.6.hook_resid_pre"]}
    wandb_world.runs[RUN] = run
    assert [r.address.partition("::")[2] for r in runs("sparsify/gpt2")] == run.config["saes"]["sae_positions"]
