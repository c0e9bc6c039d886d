"""Turn the text of the unpacked packages into token sequences, with whole documents held out."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analyses.demo.train.files import write_whole

LENGTH = 64  # tokens per sequence, of which the first is always the beginning-of-sequence token
HELD_OUT_EVERY = 20  # One shuffled document in this many is held out.
TRAIN, HELD_OUT = 4096, 320  # numbers of sequences
SEED = 0


class Corpus(NamedTuple):
    """Training and held-out token sequences, int32 [n, LENGTH]."""

    train: np.ndarray
    held_out: np.ndarray


class Source(NamedTuple):
    """One source of text, with the number of training tokens to take and a function that reads its documents."""

    name: str
    n_tokens: int
    documents: Callable[[Path], Iterable[str]]


def build(unpacked: Path, encode: Callable[[str], list[int]], *, begin: int, end: int) -> Corpus:
    """Tokenize the text and cut it into sequences, shuffled by `SEED`.

    Args:
        unpacked: folder with the unpacked Debian packages.
        encode: function that returns the tokens of a text, without special tokens.
        begin: token that starts each sequence.
        end: token that follows each document.
    """
    train: list[list[int]] = []
    held_out: list[list[int]] = []
    for source in SOURCES:
        parts = _take(source.documents(unpacked), encode, source.n_tokens, end)
        train += cut(parts[0], begin)
        held_out += cut(parts[1], begin)
    shuffle = random.Random(SEED).shuffle
    shuffle(train)
    shuffle(held_out)
    return Corpus(np.array(train[:TRAIN], dtype=np.int32), np.array(held_out[:HELD_OUT], dtype=np.int32))


def cut(tokens: list[int], begin: int) -> list[list[int]]:
    """Cut tokens into sequences of `LENGTH` that start with `begin`, and drop the incomplete last one."""
    body = LENGTH - 1
    return [[begin, *tokens[at : at + body]] for at in range(0, len(tokens) - body + 1, body)]


def save(corpus: Corpus, path: Path) -> None:
    """Save a corpus as an `.npz` file."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez_compressed(file, train=corpus.train, held_out=corpus.held_out)

    write_whole(path, write)


def read(path: Path) -> Corpus:
    """Read a corpus from a file that `save` wrote."""
    with np.load(path) as stored:
        return Corpus(stored["train"], stored["held_out"])


def _take(
    documents: Iterable[str], encode: Callable[[str], list[int]], n_tokens: int, end: int
) -> tuple[list[int], list[int]]:
    """Return training and held-out tokens, reading documents until there are enough of both."""
    wanted = (n_tokens, n_tokens // HELD_OUT_EVERY)
    streams: tuple[list[int], list[int]] = ([], [])
    for at, text in enumerate(documents):
        part = int(at % HELD_OUT_EVERY == 0)
        if len(streams[part]) < wanted[part]:
            streams[part].extend([*encode(text), end])
        elif len(streams[1 - part]) >= wanted[1 - part]:
            break
    return streams


def _shuffled(items: Iterable[str]) -> list[str]:
    ordered = sorted(items)
    random.Random(SEED).shuffle(ordered)
    return ordered


def _dictionary_entries(name: str, shortest: int, longest: int) -> Callable[[Path], Iterable[str]]:
    def documents(unpacked: Path) -> list[str]:
        with gzip.open(unpacked / f"usr/share/dictd/{name}.dict.dz", "rt", encoding="utf-8", errors="ignore") as file:
            entries = re.split(r"\n\n+", file.read())
        return _shuffled(re.sub(r"\s+", " ", e).strip() for e in entries if shortest < len(e) < longest)

    return documents


def _fortunes(unpacked: Path) -> list[str]:
    files = (p for p in (unpacked / "usr/share/games/fortunes").iterdir() if p.is_file() and not p.suffix)
    texts = (p.read_text(encoding="utf-8", errors="ignore") for p in files)
    return _shuffled(q.strip() for text in texts for q in text.split("\n%\n") if len(q) > 120)


def _pages(folder: str, pattern: str) -> Callable[[Path], Iterable[str]]:
    def documents(unpacked: Path) -> Iterator[str]:
        found = (
            str(p) for p in (unpacked / folder).glob(pattern) if not re.search("genindex|changelog|search", p.name)
        )
        for path in _shuffled(found):
            yield plain_text(Path(path).read_text(encoding="utf-8", errors="ignore"))

    return documents


def plain_text(page: str) -> str:
    """Return the text of an HTML page without scripts, styles, navigation and head."""
    reader = _PageText()
    reader.feed(page)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _PageText(HTMLParser):
    _LEFT_OUT = frozenset({"script", "style", "nav", "head"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._inside = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside += tag in self._LEFT_OUT

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in self._LEFT_OUT

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.parts.append(data)


SOURCES = (
    Source("dictionary", 120_000, _dictionary_entries("gcide", 200, 3000)),
    Source("jargon lexicon", 90_000, _dictionary_entries("jargon", 200, 20_000)),
    Source("quotations", 100_000, _fortunes),
    Source("administration handbook", 60_000, _pages("usr/share/doc/debian-handbook/html/en-US", "*.html")),
    Source("Python documentation", 60_000, _pages("usr/share/doc/python3.11/html", "**/*.html")),
)
