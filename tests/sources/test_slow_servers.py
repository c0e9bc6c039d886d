"""Tests of servers that never finish: single bytes, endless headers, long pauses, and redirects with endless bodies."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import CHECKPOINTS, KEY
from hf_server import HuggingFace, StoredRepo
from limited import limited
from wandb_server import Handler, Loopback, slow

from sae_geometry.kernels.settings import Limits, changed
from sae_geometry.sources import SourceError, load, runs
from sae_geometry.sources.http import in_time

RUN = "sparsify/gpt2/d8vgjnyc"
LAST = "samples_400000.pt"
REPO = "neuronpedia/some-saes"
WEIGHTS = "6-res/sae_weights.safetensors"
STANDARD = CHECKPOINTS / "saelens_standard"


@pytest.fixture(autouse=True)
def impatient(short_waits: None) -> Iterator[None]:
    new = Limits(connect=0.3, silence=0.3, tries=2, pause=0.01, longest_pause=0.05, slowest=50_000.0, end=2.0)
    with changed(limits=new):
        yield


def sending(h: Handler, pieces: Iterator[bytes], pause: float = 0.05) -> None:
    """Send pieces a twentieth of a second apart, for longer than a client should wait."""
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end and not h.world._stop.is_set():
            h.wfile.write(next(pieces))
            h.wfile.flush()
            time.sleep(pause)
    except OSError:
        pass
    h.close_connection = True


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def dripping(h: Handler, content: bytes) -> None:
    """Send the right headers, then single bytes."""
    h.send_response(200)
    h.send_header("Content-Length", str(max(len(content), 100_000)))
    h.end_headers()
    sending(h, endless(b" "))


def dripping_head(h: Handler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\n")
    sending(h, endless(b"X: y\r\n"))


def dripping_line(h: Handler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    sending(h, endless(b"y"))


def dripping_chunks(h: Handler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sending(h, endless(b"1\r\n \r\n"))


def redirecting_for_ever(h: Handler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /files/nothing\r\n\r\n")
    sending(h, endless(b"more" * 1000))


def without_end(h: Handler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sending(h, endless(b"10000\r\n" + b" " * 65536 + b"\r\n"), pause=0.0)


def packed(h: Handler, _: bytes) -> None:
    body = gzip.compress(b" " * (200 << 20), 9)
    h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    h.close_connection = True


def a_pause_of_days(h: Handler, _: bytes) -> None:
    h.reply(b"no", 429, Retry_After="999999", RateLimit='"api";r=0;t=999999')


FAULTS = [dripping, dripping_head, dripping_line, dripping_chunks, redirecting_for_ever, a_pause_of_days]


def ends(address: str) -> None:
    start = time.monotonic()
    with pytest.raises(SourceError) as caught:
        load(address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download(fault: object, wandb_world: Loopback) -> None:
    wandb_world.faults[LAST] = fault  # type: ignore[assignment]
    ends(RUN)


@pytest.mark.parametrize(
    ("fault", "key"), [*((fault, False) for fault in FAULTS), (dripping, True), (a_pause_of_days, True)]
)
def test_a_question(fault: object, key: bool, wandb_world: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb_world.graphql_fault = fault  # type: ignore[assignment]
    ends(RUN)


@pytest.mark.parametrize("fault", [without_end, packed])
def test_answers_too_large_to_hold(
    fault: object, wandb_world: Loopback, hf_world: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_world.repos[REPO] = StoredRepo({})
    wandb_world.graphql_fault = hf_world.api_fault = fault  # type: ignore[assignment]
    for address in (RUN, f"hf://{REPO}"):
        with limited(megabytes=600, seconds=10):
            ends(address)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        *((fault, "file") for fault in FAULTS),
        (dripping, "api"),
        (a_pause_of_days, "api"),
        (dripping_head, "head"),
        (redirecting_for_ever, "head"),
        (a_pause_of_days, "head"),
    ],
)
def test_hugging_face(fault: object, where: str, hf_world: HuggingFace) -> None:
    names = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    hf_world.repos[REPO] = StoredRepo({f"6-res/{n}": (STANDARD / n).read_bytes() for n in names})
    match where:
        case "api":
            hf_world.api_fault = fault  # type: ignore[assignment]
        case "head":
            hf_world.head_fault = fault  # type: ignore[assignment]
        case _:
            hf_world.faults[WEIGHTS] = fault  # type: ignore[assignment]
    ends(f"hf://{REPO}/6-res")


def test_pages_without_an_end(wandb_world: Loopback) -> None:
    n = 0

    def page(h: Handler, _: bytes) -> None:
        nonlocal n
        n += 1
        time.sleep(0.2)
        info = f'{{"hasNextPage": true, "endCursor": "{n}"}}'
        h.reply(f'{{"data": {{"project": {{"runs": {{"edges": [], "pageInfo": {info}}}}}}}}}'.encode())

    wandb_world.graphql_fault = page
    with pytest.raises(SourceError, match="did not finish listing"):
        runs("sparsify/gpt2")


def test_a_slow_line_is_not_too_slow(wandb_world: Loopback, tmp_path: Path) -> None:
    wandb_world.faults[LAST] = slow(2.0)
    with changed(limits=Limits(connect=0.3, silence=0.3, tries=1, slowest=10_000.0)):
        assert load(RUN).n_latents == 240


def test_a_client_s_own_timeout_is_not_waited_for_again() -> None:
    def ask() -> None:
        raise TimeoutError("of the client's own")

    with pytest.raises(TimeoutError, match="of the client's own"):
        in_time(ask, lambda: False)
