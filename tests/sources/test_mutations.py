"""Thousands of mutated files of every layout family: each gives a dictionary or one sentence, and has no side effects.

Hypothesis chooses the mutations and shrinks the one that breaks something. Half of them fall into the first and last
kilobyte, where headers and directories are. For torch files a second family mutates the pickle itself and repacks it
with a valid checksum, which would otherwise stop every mutation.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_layouts import WRITTEN, Written, write

from sae_geometry.sources import SourceError, load

N_MUTATIONS = 500  # tests/sources/fuzz.py can make any number of them.
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

How = Literal["flip", "overwrite", "delete", "insert", "repeat the start", "fill", "cut"]
Change = tuple[How, Literal["head", "tail", "anywhere"], int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(get_args(How)),
        st.sampled_from(("head", "tail", "anywhere", "anywhere")),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)

_seen: list[str] = []
_watching = False


def _watch(event: str, _: Any) -> None:
    if _watching and event in FORBIDDEN:
        _seen.append(event)


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Record every command, connection and deletion inside the block."""
    global _watching
    _seen.clear()
    _watching = True
    try:
        yield _seen
    finally:
        _watching = False


def mutated(content: bytes, changes: list[Change]) -> bytes:
    """Return the content after all changes."""
    raw = bytearray(content)
    for how, where, number, data in changes:
        if not raw:
            break
        edge = min(len(raw), 1024)
        at = {"head": number % edge, "tail": len(raw) - 1 - number % edge, "anywhere": number % len(raw)}[where]
        n = len(data)
        match how:
            case "flip":
                raw[at] ^= 1 << (data[0] % 8)
            case "overwrite":
                raw[at : at + n] = data
            case "delete":
                del raw[at : at + n]
            case "insert":
                raw[at:at] = data
            case "repeat the start":
                raw[at : at + n] = raw[:n]
            case "fill":
                raw[at : at + n] = bytes([(0, 0x7F, 0x80, 0xFF)[data[0] % 4]]) * n
            case "cut":
                del raw[at:]
    return bytes(raw)


@dataclass
class Tally:
    """Counts of the files read and refused, and the longest CPU time for one."""

    read: int = 0
    refused: int = 0
    longest: float = 0.0

    def try_one(self, path: Path, raw: bytes) -> None:
        path.write_bytes(raw)
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                d = load(path, "all")
        except ValueError as error:
            self.refused += 1
            check_sentence(error)
        else:
            self.read += 1
            assert bool(torch.isfinite(d.directions).all())
        self.longest = max(self.longest, time.process_time() - start)


def check_sentence(error: ValueError) -> None:
    """Check that the error is one line of the package."""
    text = str(error)
    assert isinstance(error, SourceError) or "coder rows with" in text, text
    assert "\n" not in text, text


def try_many(path: Path, originals: list[bytes], variant: Callable[[bytes, list[Change]], bytes]) -> None:
    tally = Tally()

    @settings(
        max_examples=N_MUTATIONS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(originals), CHANGES)
    def one(content: bytes, changes: list[Change]) -> None:
        tally.try_one(path, variant(content, changes))

    with watched() as seen:
        one()
    assert seen == []
    assert tally.read + tally.refused >= N_MUTATIONS
    assert tally.refused > N_MUTATIONS // 20, "too few mutations were refused"
    assert tally.longest < MAX_SECONDS


def written(container: str, *names: str) -> list[Written]:
    """Return the small files of these layouts in a container, or of all layouts if none is named."""
    return [c for c in WRITTEN if c[3] == container and (not names or c[0] in names)]


# The layouts of a family are read by the same code in the same way.
FAMILIES = {
    "state dictionaries in torch files": written("pt"),
    "W_dec and W_enc": written(
        "safetensors", "saelens", "circuit_tracer", "circuit_tracer_2024", "sae_geometry", "sae_geometry_consensus",
        "sparsify",
    ),
    "linear layers": written("safetensors", "llama_scope"),
    "other names": written("safetensors", "gemma_scope_2", "llamascopium", "temporal", "rows"),
    "several outputs": written(
        "safetensors", "gemma_scope_2_clt", "llamascopium_crosscoder", "circuit_tracer_clt",
        "dictionary_learning_crosscoder",
    ),
    "npz": written("npz"),
    "npy": written("npy"),
}  # fmt: skip


def test_every_written_layout_is_in_a_family() -> None:
    assert {id(c) for cases in FAMILIES.values() for c in cases} == {id(c) for c in WRITTEN}


def originals(cases: list[Written], folder: Path) -> list[bytes]:
    return [write(folder / str(i), c[1], {}, c[3]).read_bytes() for i, c in enumerate(cases)]


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_files(family: str, tmp_path: Path) -> None:
    try_many(tmp_path / "mutated", originals(FAMILIES[family], tmp_path), mutated)


def repacked(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a torch file with a changed pickle and valid checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            raw = source.read(name)
            target.writestr(name, change(raw) if name.endswith("data.pkl") else raw)
    return out.getvalue()


def test_mutated_pickles(tmp_path: Path) -> None:
    try_many(
        tmp_path / "mutated.pt",
        originals(FAMILIES["state dictionaries in torch files"], tmp_path),
        lambda content, changes: repacked(content, lambda raw: mutated(raw, changes)),
    )


def test_the_watch_can_see() -> None:
    import os

    with watched() as seen:
        os.system("true")
    assert seen == ["os.system"]
