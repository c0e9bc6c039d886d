"""Thousands of mutated files of every layout family: a dictionary or one sentence, never a crash, a hang or a command.

The mutations are seeded, so that a failure is found again. Half of them fall into the first and last kilobytes, where
headers and directories are; for torch files a second family mutates the pickle itself and packs it with a right
checksum, which is otherwise where every mutation ends.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_layouts import WRITTEN, Written, write

from sae_geometry.sources import SourceError, load

N_MUTATIONS = 2000
MAX_SECONDS = 2.0
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "os.remove",
    "shutil.rmtree",
)

_seen: list[str] = []
_watching = False


def _watch(event: str, _: Any) -> None:
    if _watching and event in FORBIDDEN:
        _seen.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def watched() -> Iterator[None]:
    """Any command, connection or deletion while files are read fails the test."""
    global _watching
    _seen.clear()
    _watching = True
    yield
    _watching = False
    assert _seen == []


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """A few random changes: flipped and overwritten bytes, cuts, insertions, runs moved about, extreme numbers."""
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not raw:
            break
        edge = min(len(raw), 1024)
        at = (
            int(rng.integers(len(raw)))
            if rng.random() < 0.5
            else int(rng.choice([0, len(raw) - edge]) + rng.integers(edge))
        )
        n = int(rng.integers(1, 9))
        match int(rng.integers(7)):
            case 0:
                raw[at] ^= 1 << int(rng.integers(8))
            case 1:
                raw[at : at + n] = rng.bytes(n)
            case 2:
                del raw[at : at + n]
            case 3:
                raw[at:at] = rng.bytes(n)
            case 4:
                raw[at : at + n] = raw[: max(0, len(raw) - n)][:n]
            case 5:
                raw[at : at + n] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * n
            case _:
                del raw[at:]
    return bytes(raw)


def read_all(path: Path, variants: Iterator[bytes]) -> tuple[int, int, float]:
    """Load every variant; how many were read, how many refused, and the longest time of one."""
    read = refused = 0
    longest = 0.0
    for raw in variants:
        path.write_bytes(raw)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                d = load(path, "all")
        except ValueError as error:
            refused += 1
            check_sentence(error)
        else:
            read += 1
            assert bool(torch.isfinite(d.directions).all())
        longest = max(longest, time.perf_counter() - start)
    return read, refused, longest


def check_sentence(error: ValueError) -> None:
    """It is ours, and one line."""
    text = str(error)
    assert isinstance(error, SourceError) or "decoder" in text, text
    assert "\n" not in text, text


def families() -> dict[str, Written]:
    return {f"{case[0]}-{case[3]}": case for case in WRITTEN}


@pytest.mark.parametrize("family", families())
def test_mutated_files(family: str, tmp_path: Path, watched: None) -> None:
    _, tensors, config, container, _, _ = families()[family]
    path = write(tmp_path, tensors, config, container)
    content = path.read_bytes()
    rng = np.random.default_rng(sum(family.encode()))
    read, refused, longest = read_all(path, (mutate(content, rng) for _ in range(N_MUTATIONS)))
    assert read + refused == N_MUTATIONS
    assert refused > N_MUTATIONS // 20, "mutations that break nothing test nothing"
    assert longest < MAX_SECONDS


def repacked(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A torch file with a changed pickle and right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            raw = source.read(name)
            target.writestr(name, change(raw) if name.endswith("data.pkl") else raw)
    return out.getvalue()


@pytest.mark.parametrize("layout", ["e2e_sae", "openai"])
def test_mutated_pickles(layout: str, tmp_path: Path, watched: None) -> None:
    tensors = next(c[1] for c in WRITTEN if c[0] == layout)
    path = write(tmp_path, tensors, {}, "pt")
    content = path.read_bytes()
    rng = np.random.default_rng(7)
    variants = (repacked(content, lambda raw: mutate(raw, rng)) for _ in range(N_MUTATIONS))
    read, refused, longest = read_all(path, variants)
    assert read + refused == N_MUTATIONS
    assert refused > N_MUTATIONS // 20
    assert longest < MAX_SECONDS


def test_the_watch_can_see(tmp_path: Path) -> None:
    import os

    global _watching
    _seen.clear()
    _watching = True
    os.system("true")
    _watching = False
    assert _seen == ["os.system"]
