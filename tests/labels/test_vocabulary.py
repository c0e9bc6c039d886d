from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae_geometry.labels.vocabulary import printable, read_vocabulary


def write(path: Path, model: dict, decoder: dict | None, added: list[dict] | None = None) -> Path:
    file = path / "tokenizer.json"
    file.write_text(json.dumps({"model": model, "decoder": decoder, "added_tokens": added or []}))
    return file


def test_byte_level_tokens_are_decoded(tmp_path):
    pieces = ["Ġthe", "Ċ", "cafÃ©", "âĸ", "é", "ĉx", "ĠðŁĻĤ", "\\"]
    file = write(
        tmp_path,
        {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}},
        {"type": "ByteLevel"},
        [{"id": 9, "content": "<|end|>"}],
    )
    assert read_vocabulary(file) == (
        " the", "\\n", "café", "\\xe2\\x96", "\\xe9", "\\tx", " 🙂", "\\\\", "", "<|end|>",
    )  # fmt: skip


def test_sentencepiece_tokens_are_decoded(tmp_path):
    model = {"type": "Unigram", "vocab": [["<unk>", 0], ["▁the", -1], ["<0x0A>", -2], ["<0xE2>", -3], ["ing", -4]]}
    steps = {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}
    assert read_vocabulary(write(tmp_path, model, steps)) == ("<unk>", " the", "\\n", "\\xe2", "ing")


def test_a_token_is_one_line_of_printable_text():
    assert printable("a\x1b[31m\u202eb\r".encode()) == "a\\x1b[31m\\u202eb\\r"
    assert printable(b"\xff") == "\\xff"


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", '{"model": {"vocab": 3}}', "nonsense", '{"model": {"vocab": {"a": -1}}}',
        '{"model": {"vocab": [[]]}}', '{"model": {"vocab": {"a": 1e999}}}', '{"model": {"vocab": {"a": 16000000}}}',
        '{"model": {"vocab": {"a": 0}}, "decoder": {"decoders": 5}}',
    ],
)  # fmt: skip
def test_what_is_not_a_tokenizer_is_refused(tmp_path, text):
    file = tmp_path / "tokenizer.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        read_vocabulary(file)
