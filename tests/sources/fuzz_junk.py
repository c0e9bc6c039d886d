"""Values and bytes with random errors."""

from __future__ import annotations

import random
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    8,
    32,
    -1,
    255,
    1 << 15,
    1 << 31,
    1 << 32,
    1 << 47,
    1 << 62,
    1 << 63,
    1 << 80,
    10**30,
    10**400,
)
NAMES = (
    "W_dec",
    "W_enc",
    "b_dec",
    "b_enc",
    "W_D",
    "W_E",
    "W_D.0",
    "W_D.1",
    "W_dec_0",
    "W_enc_0",
    "w_dec",
    "w_enc",
    "decoder.weight",
    "encoder.weight",
    "D",
    "E",
    "array",
    "arr_0",
    "frequency",
    "blocks-1.decoder.weight",
    "blocks-1.encoder.0.weight",
    "decoder_linear.weight",
    "pre_bias",
    "latent_bias",
    "latents_activation_frequency",
    "threshold",
    "state_dict.W_dec",
    "W_D.1000000000",
    "W_dec_999999999",
    "a.b.c.d",
    "",
    "é",
    "\n",
    "\u202e",
    "x" * 5000,
)
WORDS = (
    "",
    "a",
    "resid_pre",
    "é",
    "\n",
    "\ud800",
    "\u202e",
    "../../x",
    "samples_1.pt",
    "0",
    "²",
    "-1",
    "1e999",
    "x" * 3000,
)


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = rng.randrange(8 if depth < 3 else 6)
    match kind:
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice((None, True, False, 0.5, -1.5, float("nan"), float("inf"), 1e308))
        case 2 | 3:
            return rng.choice(WORDS)
        case 4:
            return [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
        case 5:
            return {}
        case 6:
            return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {rng.choice(WORDS + NAMES): junk(rng, depth + 1) for _ in range(rng.randrange(4))}


def changed(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one or a few of its parts replaced, dropped or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        return value[:i] + [changed(rng, value[i])] * rng.choice((1, 1, 1, 2)) + value[i + 1 :]
    return junk(rng)


def mangled(rng: random.Random, raw: bytes) -> bytes:
    """Return bytes with a few of them flipped, overwritten, dropped, repeated or cut off, more often near the ends."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        n = len(out)
        if not n:
            break
        at = rng.choice((rng.randrange(min(n, 1024)), n - 1 - rng.randrange(min(n, 1024)), rng.randrange(n)))
        size = rng.choice((1, 2, 4, 8))
        match rng.randrange(6):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + size] = rng.randbytes(size)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[max(0, at - 50) : at]
            case 4:
                out[at : at + size] = rng.choice((b"\0", b"\x7f", b"\x80", b"\xff")) * size
            case _:
                if rng.random() < 0.3:
                    del out[at:]
    return bytes(out)
