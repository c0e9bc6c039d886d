"""Tokens of a tokenizer as readable text, from its `tokenizer.json`.

The file is read as data rather than through the `tokenizers` package: that package decodes a token of half a character
to a replacement mark and drops leading spaces, while a list of top tokens must tell them apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAX_BYTES = 64 << 20
_MAX_TOKENS = 1 << 24
_GAPS = 100_000  # ids without a token; a vocabulary has hundreds
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Read the tokens of a `tokenizer.json` by id, each as one line of printable text; "" for an id without a token.

    Byte-level tokens (GPT-2, Llama 3, Qwen) and SentencePiece ones (Llama 2, Gemma) are decoded to text. Bytes that are
    not a whole character, control characters and other unprintable ones are escaped: `\\n`, `\\x1b`, `\\u202e`.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, more than a tokenizer needs")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        vocab = table["model"]["vocab"]  # ids of BPE and WordPiece pieces, or a list of (piece, score) for Unigram
        listed = ((entry[0], i) for i, entry in enumerate(vocab)) if isinstance(vocab, list) else vocab.items()
        pieces = {int(i): str(piece) for piece, i in listed}
        special = {int(t["id"]): str(t["content"]) for t in table.get("added_tokens") or ()}
        to_text = _decoder(table)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is not a tokenizer of the tokenizers library: expected its tokenizer.json"
        ) from error
    largest = max([*pieces, *special], default=-1)
    if largest < 0 or largest >= _MAX_TOKENS or min([*pieces, *special]) < 0:
        raise ValueError(f"{path.name} has token ids outside 0…{_MAX_TOKENS - 1:,}, or none")
    if largest >= len(pieces) + len(special) + _GAPS:
        raise ValueError(f"{path.name} has {len(pieces) + len(special):,} tokens with ids up to {largest:,}; refused")
    texts = {i: printable(to_text(piece)) for i, piece in pieces.items()}
    texts |= {i: printable(content.encode("utf-8", "surrogatepass")) for i, content in special.items()}
    return tuple(texts.get(i, "") for i in range(largest + 1))


def printable(raw: bytes) -> str:
    """Return UTF-8 text with everything that is not a printable character escaped.

    Example:
        >>> printable(" café\\n".encode()), printable(b"\\xe2\\x96")
        (' café\\\\n', '\\\\xe2\\\\x96')
    """
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    if c in _SHORT:
        return _SHORT[c]
    n = ord(c)
    if 0xDC80 <= n <= 0xDCFF:  # a byte that is part of no character
        return f"\\x{n - 0xDC00:02x}"
    return f"\\x{n:02x}" if n < 0x80 else f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}"


def _decoder(table: Mapping[str, Any]) -> Any:
    """Return the function from a piece to its bytes that the tokenizer's decoder implies."""
    steps = set(_types(table.get("decoder"))) | set(_types(table.get("pre_tokenizer")))
    if "ByteLevel" in steps:
        alphabet = _byte_alphabet()
        return lambda piece: (
            bytes(alphabet[c] for c in piece) if all(c in alphabet for c in piece) else piece.encode("utf-8", "replace")
        )

    def sentencepiece(piece: str) -> bytes:
        byte = _BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode("utf-8", "surrogatepass")

    return sentencepiece


def _types(step: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(step, Mapping) and depth < 8:
        yield str(step.get("type"))
        for inner in (*(step.get("decoders") or ()), *(step.get("pretokenizers") or ())):
            yield from _types(inner, depth + 1)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of the byte-level alphabet: printable Latin-1 as it is, the rest shifted."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = (b for b in range(256) if b not in set(own))
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(moved)}
