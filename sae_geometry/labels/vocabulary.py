"""Read the tokens of a tokenizer from its `tokenizer.json`, as printable text.

The `tokenizers` package is not used, because it drops leading spaces and decodes every incomplete character to the same
replacement character, so different tokens would look the same in a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAX_BYTES = 64 << 20
_MAX_TOKENS = 1 << 24
_GAPS = 100_000  # maximum number of ids without a token; real vocabularies have hundreds
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Return the tokens in a `tokenizer.json` by id, as lines of printable text; "" if an id has no token.

    Byte-level tokens (GPT-2, Llama 3, Qwen) and SentencePiece tokens (Llama 2, Gemma) are decoded to text. Incomplete,
    control and other unprintable characters are escaped, for example as `\\n`, `\\x1b` and `\\u202e`.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, above the limit of {_MAX_BYTES:,}")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        vocab = table["model"]["vocab"]  # Unigram stores a list of (piece, score).
        listed = ((entry[0], i) for i, entry in enumerate(vocab)) if isinstance(vocab, list) else vocab.items()
        pieces = {int(i): str(piece) for piece, i in listed}
        special = {int(t["id"]): str(t["content"]) for t in table.get("added_tokens") or ()}
        to_text = _decoder(table)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: expected a file of the tokenizers library") from error
    largest = max([*pieces, *special], default=-1)
    if largest < 0 or largest >= _MAX_TOKENS or min([*pieces, *special]) < 0:
        raise ValueError(f"{path.name} has no token ids, or has ids outside 0…{_MAX_TOKENS - 1:,}")
    if largest >= len(pieces) + len(special) + _GAPS:
        raise ValueError(f"{path.name} has {len(pieces) + len(special):,} tokens with ids up to {largest:,}; refused")
    texts = {i: printable(to_text(piece)) for i, piece in pieces.items()}
    texts |= {i: printable(content.encode("utf-8", "surrogatepass")) for i, content in special.items()}
    return tuple(texts.get(i, "") for i in range(largest + 1))


def printable(raw: bytes) -> str:
    """Decode UTF-8 bytes to text, and escape invalid bytes, unprintable characters and backslashes.

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
    if 0xDC80 <= n <= 0xDCFF:  # surrogateescape decodes an invalid byte to this range.
        return f"\\x{n - 0xDC00:02x}"
    return f"\\x{n:02x}" if n < 0x80 else f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}"


def _decoder(table: Mapping[str, Any]) -> Any:
    """Return a function that decodes a piece of the vocabulary to bytes, as the tokenizer's decoder does."""
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
    """Return the byte of each character in the byte-level alphabet, which maps unprintable bytes to 256 and above."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = (b for b in range(256) if b not in set(own))
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(moved)}
