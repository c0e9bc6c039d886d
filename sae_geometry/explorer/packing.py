"""Packing of the table into little-endian typed arrays in one buffer, which the page's script need not parse.

Rows are shuffled, so that no run covers another when rows are drawn in order, and the first rows are a fair sample.
Partners are positions in the buffer. Each run has one *slot* per other run, in order: with R runs there are R − 1
slots, and slot k of run r refers to run k if k < r, else to run k + 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sae_geometry.io.escaping import shown
from sae_geometry.matching.defaults import DISCOVERY_RATE

NO_PARTNER, ON_CHAIN = -1, -2
# Cosines are stored as int16, in steps of 1/32,767; the smallest int16 means unknown.
COSINE_STEPS, NO_COSINE = 32767, -32768
_ALIGN = 8
# Maximum number of tokens per latent, and maximum length of a token and of an explanation.
_MOST_TOKENS, _LONGEST_TOKEN, _LONGEST = 10, 40, 300


class Packed(NamedTuple):
    """Arrays packed into one buffer.

    Attributes:
        where: the JavaScript type, the offset in bytes and the length of each array.
        texts: the distinct tokens, and an explanation per row; empty lists if there are no labels.
    """

    where: Mapping[str, tuple[str, int, int]]
    buffer: bytes
    texts: Mapping[str, Sequence[str]]


_TYPES = {
    "f4": "Float32Array", "i4": "Int32Array", "u4": "Uint32Array", "i2": "Int16Array", "u2": "Uint16Array",
    "u1": "Uint8Array",
}  # fmt: skip


def pack(table: pd.DataFrame, names: Sequence[str], letters: Sequence[str], *, in_chains: bool = False) -> Packed:
    """Return the arrays of a page, packed into one buffer.

    Arrays: x, y float32; run uint16; id uint32; region uint16, 1 + index into `letters`, 0 outside all regions;
    frequency float32 (nan if unknown), if any is known; for each slot k: nearest_k int32, cosine_k int16, mutual_k
    uint8, significant_k uint8 (q-value at most 0.05), single_k int32, single_cosine_k int16. If there are labels:
    readable uint8 (0 unknown, 1 no, 2 yes); tokens uint32 [rows · k], 1 + index into `texts.tokens`, 0 for none; and
    the explanations in `texts`, in the order of the rows.

    Args:
        table: as in `Embedding.to_pandas`.
        in_chains: whether runs are layers, and one-to-one partners form chains through them. The page then follows
            chains itself: single_k has only partners in the next layer; nearest_k is −2 for a partner on the chain.

    Raises:
        ValueError: a duplicate latent, or a coordinate that is not finite.
    """
    tokens, words = _tokens(table)
    order = np.random.default_rng(0).permutation(len(table))
    table = table.iloc[order]
    owner = table["run"].map({name: i for i, name in enumerate(names)}).to_numpy(dtype=np.int64)
    ids = table["latent_id"].to_numpy(dtype=np.int64)
    rows = [np.flatnonzero(owner == r) for r in range(len(names))]
    for name, mine in zip(names, rows, strict=True):
        if len(np.unique(ids[mine])) != len(mine):
            raise ValueError(f"the table has more than one row for a latent of {name}")
    coords = table[["x", "y"]].to_numpy(dtype=np.float64)
    if not np.isfinite(coords).all():
        raise ValueError("the table has coordinates that are not finite")

    codes = {letter: i for i, letter in enumerate(letters, 1)}
    regions = table["region"].map(codes).fillna(0) if "region" in table.columns else np.zeros(len(table))
    arrays = {"x": coords[:, 0].astype("<f4"), "y": coords[:, 1].astype("<f4")}
    arrays |= {"run": owner.astype("<u2"), "id": ids.astype("<u4"), "region": np.asarray(regions, "<u2")}
    if _any_known(table, "readable"):
        known = table["readable"].map({True: 2, False: 1}, na_action="ignore")
        arrays["readable"] = known.fillna(0).to_numpy(dtype="u1")
    frequency = _floats(table, "frequency")
    if np.isfinite(frequency).any():
        arrays["frequency"] = frequency.astype("<f4")
    for slot in range(len(names) - 1):
        arrays |= _slot(table, names, slot, rows=rows, ids=ids)
        if in_chains:
            _thin(arrays, slot, owner)
    if tokens is not None:
        arrays["tokens"] = tokens[order].reshape(-1)
    explained = table["explanation"].fillna("") if _any_known(table, "explanation") else ()
    return Packed(*_buffer(arrays), {"tokens": words, "explanations": [shown(text, _LONGEST) for text in explained]})


def _any_known(table: pd.DataFrame, column: str) -> bool:
    return column in table.columns and bool(table[column].notna().any())


def _tokens(table: pd.DataFrame) -> tuple[np.ndarray | None, list[str]]:
    """Return the top tokens of each row as 1-based indices into a list of distinct tokens, and that list."""
    if not _any_known(table, "tokens"):
        return None, []
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(t, len(numbers) + 1) for t in _listed(text)] for text in table["tokens"].fillna("[]")]
    tokens = np.zeros((len(rows), max(map(len, rows))), dtype="<u4")
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
    return tokens, list(numbers)


def _listed(text: str) -> list[str]:
    """Return the tokens of one row; an empty list if the text is not a JSON list."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [shown(value, _LONGEST_TOKEN) for value in values[:_MOST_TOKENS]] if isinstance(values, list) else []


def _slot(
    table: pd.DataFrame, names: Sequence[str], slot: int, *, rows: list[np.ndarray], ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of one slot: the partners of all latents in the run that the slot refers to."""
    n = len(table)
    nearest, single = np.full(n, NO_PARTNER, "<i4"), np.full(n, NO_PARTNER, "<i4")
    cosine, single_cosine = np.full(n, np.nan), np.full(n, np.nan)
    mutual, significant = np.zeros(n, "u1"), np.zeros(n, "u1")
    for r, mine in enumerate(rows):
        other = slot if slot < r else slot + 1
        theirs = rows[other]
        part = table.iloc[mine]
        for into, column in ((nearest, "partner_id"), (single, "one_to_one_partner_id")):
            into[mine] = _positions(part[f"{column}:{names[other]}"], ids[theirs], theirs)
        cosine[mine] = _floats(part, f"max_cosine:{names[other]}")
        single_cosine[mine] = _floats(part, f"one_to_one_cosine:{names[other]}")
        significant[mine] = _floats(part, f"q_value:{names[other]}") <= DISCOVERY_RATE
        mutual[mine] = part[f"mutual:{names[other]}"].fillna(False).to_numpy(dtype=bool)
    return {
        f"nearest_{slot}": nearest,
        f"cosine_{slot}": _steps(cosine),
        f"mutual_{slot}": mutual,
        f"significant_{slot}": significant,
        f"single_{slot}": single,
        f"single_cosine_{slot}": _steps(single_cosine),
    }


def _thin(arrays: dict[str, np.ndarray], slot: int, owner: np.ndarray) -> None:
    """Remove from a slot the values that the page recovers by following chains, since these would compress poorly."""
    nearest, cosine, single, single_cosine = (
        arrays[f"{name}_{slot}"] for name in ("nearest", "cosine", "single", "single_cosine")
    )
    same = (nearest == single) & (nearest != NO_PARTNER) & (cosine == single_cosine)
    nearest[same], cosine[same] = ON_CHAIN, NO_COSINE
    further = owner != slot  # Slot k of layer k refers to the next layer.
    single[further], single_cosine[further] = NO_PARTNER, NO_COSINE


def _positions(wanted: pd.Series[Any], ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the position in the buffer of each wanted latent id; −1 if it is not among `ids`."""
    asked = wanted.fillna(NO_PARTNER).to_numpy(dtype=np.int64)
    at = pd.Index(ids).get_indexer(pd.Index(asked))
    return np.where(at >= 0, rows[at], NO_PARTNER)


def _steps(cosine: np.ndarray) -> np.ndarray:
    known = np.isfinite(cosine)
    out = np.full(len(cosine), NO_COSINE, dtype="<i2")
    out[known] = np.rint(np.clip(cosine[known], -1, 1) * COSINE_STEPS)
    return out


def _floats(table: pd.DataFrame, column: str) -> np.ndarray:
    if column not in table.columns:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[column]).astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)


def _buffer(arrays: dict[str, np.ndarray]) -> tuple[dict[str, tuple[str, int, int]], bytes]:
    where: dict[str, tuple[str, int, int]] = {}
    parts, at = [], 0
    for name, values in arrays.items():
        raw = values.tobytes()
        where[name] = (_TYPES[values.dtype.str[1:]], at, len(values))
        parts.append(raw + bytes(-len(raw) % _ALIGN))
        at += len(parts[-1])
    return where, b"".join(parts)
