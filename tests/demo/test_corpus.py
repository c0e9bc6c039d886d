"""Tests of the demo dictionaries' corpus: cutting, holding out and reading pages."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from analyses.demo.train import corpus

PAGE = """<html><head><title>no</title></head><body><nav>no <b>no</b></nav>
<h1>A  title</h1><script>var no = "<p>";</script>
<p>One &amp; two,   three.</p><style>no</style></body></html>"""


def test_cutting_fills_whole_sequences_and_drops_the_rest():
    body = corpus.LENGTH - 1
    tokens = list(range(100, 100 + 2 * body + 5))
    first, second = corpus.cut(tokens, begin=1)
    assert first == [1, *tokens[:body]]
    assert second == [1, *tokens[body : 2 * body]]
    assert corpus.cut(tokens[: body - 1], begin=1) == []


def test_a_page_keeps_its_words_only():
    assert corpus.plain_text(PAGE) == "A title\nOne & two, three."


@pytest.fixture
def unpacked(tmp_path):
    """Return the five packages in miniature: every document repeats one unique word."""
    for name in ("gcide", "jargon"):
        path = tmp_path / f"usr/share/dictd/{name}.dict.dz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write("\n\n".join(f"{name}{i} " * 60 for i in range(90)))
    fortunes = tmp_path / "usr/share/games/fortunes"
    fortunes.mkdir(parents=True)
    (fortunes / "wit").write_text("\n%\n".join(f"wit{i} " * 60 for i in range(90)))
    (fortunes / "wit.dat").write_bytes(b"\x00no")
    for place in ("debian-handbook/html/en-US", "python3.11/html"):
        folder = tmp_path / "usr/share/doc" / place
        folder.mkdir(parents=True)
        for i in range(90):
            (folder / f"p{i}.html").write_text(f"<p>{place[0]}{i} {'and so on ' * 40}</p>")
        (folder / "genindex.html").write_text("<p>no</p>")
    return tmp_path


def encode(text):
    return [hash_of(word) for word in text.split()]


def hash_of(word):
    return 10 + int.from_bytes(word.encode(), "little") % 1_000_003


def test_no_document_is_both_trained_on_and_held_out(unpacked):
    found = corpus.build(unpacked, encode, begin=1, end=2)
    assert found.train.shape[1] == found.held_out.shape[1] == corpus.LENGTH
    assert (found.train[:, 0] == 1).all()
    named = {hash_of(f"{name}{i}") for name in ("gcide", "jargon", "wit", "d", "p") for i in range(90)}
    seen = [set(part[:, 1:].flatten().tolist()) & named for part in found]
    assert len(seen[0]) > 300
    assert len(seen[1]) > 10
    assert not seen[0] & seen[1]
    assert hash_of("no") not in found.train


def test_the_corpus_is_the_same_every_time_and_survives_a_file(unpacked, tmp_path):
    first, second = (corpus.build(unpacked, encode, begin=1, end=2) for _ in range(2))
    corpus.save(first, tmp_path / "corpus.npz")
    for a, b, c in zip(first, second, corpus.read(tmp_path / "corpus.npz"), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
