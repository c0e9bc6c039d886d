"""Label columns for tables of latents, joined by run and original id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.labels import Labels

# Label columns of the package. The user's columns are named `label:NAME` in tables.
_OWN = ("tokens", "logits", "negative_tokens", "negative_logits", "token_cosine", "turned_token_cosine", "readable",
        "readable_q", "explanation", "density")  # fmt: skip
_IN_TABLES = ("tokens", "readable", "explanation", "density")
_CELL = 56  # maximum length in characters of a text in a list
_LONGEST_TOKEN, _LONGEST_TEXT = 100, 2000  # maximum lengths in characters in a table
# Each column of ids has a column with the run's name, the index of the dictionary to use if the table lacks that
# column, and a prefix for the names of its label columns.
_ID_COLUMNS = {
    "latent_id": ("run", -1, ""),
    "partner_id": ("partner_run", -1, "partner_"),
    "wide_id": (None, -1, ""),
    "narrow_id": (None, 0, ""),
    "parent_id": (None, 0, "partner_"),
    "a_id": (None, 0, ""),
    "b_id": (None, -1, "partner_"),
    "nearest_id": (None, 0, "nearest_"),
    "next_latent_id": ("next_run", -1, "next_"),
}
_PARTNERS = ("partner_", "next_")  # column prefixes of the second latent of a pair
_token = lru_cache(maxsize=1 << 18)(shown)  # Tables repeat the same tokens many times.


def label_columns(runs: pd.Series[Any], ids: pd.Series[Any], by_name: Mapping[str, Dictionary]) -> pd.DataFrame:
    """Return the labels of latents given by run and id, one row per latent in order; null if unlabeled."""
    parts = []
    for name, d in by_name.items():
        rows = np.flatnonzero((runs == name).to_numpy())
        if d.labels is not None and len(rows):
            parts.append(labels_of(d.labels, ids.to_numpy()[rows]).set_axis(rows, axis=0))
    joined = pd.concat(parts) if parts else pd.DataFrame()
    return joined.reindex(range(len(ids)))


def labels_of(labels: Labels, ids: np.ndarray) -> pd.DataFrame:
    """Return the labels of some latents, one row per id in order, with the user's columns renamed to `label:NAME`."""
    return labels.for_ids(ids).rename(columns=lambda c: c if c in _OWN else f"label:{c}")


def table_columns(labels: pd.DataFrame, prefix: str = "") -> dict[str, pd.Series[Any]]:
    """Return the label columns that tables include, as plain values (text, numbers or booleans)."""
    names = [c for c in labels.columns if c in _IN_TABLES or c.startswith("label:")]
    return {f"{prefix}{name}": _plain(labels[name]) for name in names}


def labeled_table(table: pd.DataFrame, dictionaries: Sequence[Dictionary]) -> pd.DataFrame:
    """Return a table of latents with label columns after its own; the same table if there are no labels.

    The columns are tokens (JSON, largest logit first), readable, explanation, density, and `label:NAME` for the user's
    columns. Their prefix is `partner_` for partners (`next_` in the next layer), `NAME:` for members of a group, and
    `latent_I:` for those of a chain. Pairs also have token_overlap and logit_cosine.
    """
    sides = _sides(table, dictionaries)
    if not sides:
        return table
    added: dict[str, pd.Series[Any]] = {}
    for prefix, _, _, labels in sides:
        added |= table_columns(labels, prefix)
    first = [side[1:] for side in sides if side[0] == ""]
    second = [side[1:] for side in sides if side[0] in _PARTNERS]
    for (run, latent, own), (partner_run, partner, other) in zip(first, second, strict=False):
        ids = {"run": run, "latent_id": latent, "partner_run": partner_run, "partner_id": partner}
        overlap = token_overlap(own.get("tokens"), other.get("tokens"), len(table))
        logits = logit_cosine(pd.DataFrame(ids), {d.name: d for d in dictionaries})
        both = {"token_overlap": overlap, "logit_cosine": logits}
        added |= {name: pd.Series(values) for name, values in both.items() if not np.isnan(values).all()}
    columns = {name: values.set_axis(table.index) for name, values in added.items() if name not in table.columns}
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


def _sides(
    table: pd.DataFrame, dictionaries: Sequence[Dictionary]
) -> list[tuple[str, pd.Series[Any], pd.Series[Any], pd.DataFrame]]:
    """Return (prefix of the label columns, runs, ids, labels) for each column of ids."""
    if all(d.labels is None for d in dictionaries):
        return []
    by_name = {d.name: d for d in dictionaries}
    sides = []
    for column, (named, which, prefix) in _ID_COLUMNS.items():
        if column in table.columns:
            ids = table[column].reset_index(drop=True)
            runs = table[named].reset_index(drop=True) if named in table.columns else None
            runs = pd.Series(dictionaries[which].name, index=ids.index) if runs is None else runs
            sides.append((prefix, runs, ids, label_columns(runs, ids, by_name)))
    # Tables of consensus groups and chains have a column of ids per run, named after the run or its layer.
    for column, name in [(d.name, d.name) for d in dictionaries] + [
        (f"latent_{at}", d.name) for at, d in enumerate(dictionaries)
    ]:
        if column in table.columns and pd.api.types.is_integer_dtype(table[column].dtype):
            ids = table[column].reset_index(drop=True)
            runs = pd.Series(name, index=ids.index)
            sides.append((f"{column}:", runs, ids, label_columns(runs, ids, by_name)))
    return sides


def labeled_list(table: pd.DataFrame, dictionaries: Sequence[Dictionary]) -> pd.DataFrame:
    """Return a printable list of latents with one short label per latent; the same list if there are no labels."""
    sides = _sides(table, dictionaries)
    texts = {}
    for prefix, _, _, labels in sides:
        stated = labels[[c for c in labels.columns if c in ("tokens", "explanation") or c.startswith("label:")]]
        texts[f"{prefix}label"] = [label_text(row) for row in stated.to_dict("records")] or [""] * len(table)
    return table.assign(**texts) if sides else table


def tokens_line(tokens: Sequence[str], most: int = 6) -> str:
    """Return a few tokens on one line, in quotes if they are empty or begin or end with a space."""
    return " ".join(f"‘{t}’" if t != t.strip() or not t else t for t in (_token(t, 24) for t in tokens[:most]))


def label_text(labels: Mapping[Any, Any] | pd.Series[Any]) -> str:
    """Return a latent's label in one short line: its explanation and tokens, or else the user's columns."""
    parts = []
    explanation, tokens = labels.get("explanation"), labels.get("tokens")
    if isinstance(explanation, str):
        parts.append(shown(explanation, _CELL))
    if isinstance(tokens, list | tuple | np.ndarray):
        words = [t.strip() if t.strip() else t for t in map(str, tokens)]
        parts.append(tokens_line(words, 3 if parts else 5))
    elif isinstance(tokens, str):
        parts.append(shown(tokens, _CELL))
    if not parts:
        own = (f"{str(name)[6:]} {value}" for name, value in labels.items() if str(name)[:6] == "label:")
        parts += [shown(text, _CELL) for text in own if not text.endswith((" nan", " None", " <NA>"))][:2]
    return shown(" — ".join(parts), 2 * _CELL)


def label_of(d: Dictionary, latent_id: int) -> str:
    """Return the `label_text` of one latent; empty if the dictionary has no labels."""
    return "" if d.labels is None else label_text(labels_of(d.labels, np.array([latent_id])).iloc[0])


def token_overlap(a: pd.Series[Any] | None, b: pd.Series[Any] | None, n: int) -> np.ndarray:
    """Return the share of tokens that two lists have in common, per row, float64 [n]; nan if a list is missing."""
    out = np.full(n, np.nan)
    if a is None or b is None:
        return out
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if _is_list(x) and _is_list(y) and len(x) and len(y):
            out[i] = len(set(x) & set(y)) / max(len(set(x)), len(set(y)))
    return out


def logit_cosine(pairs: pd.DataFrame, by_name: Mapping[str, Dictionary]) -> np.ndarray:
    """Return the cosine of the two logit effects of each pair, x M y / √(x M x · y M y), float64 [n].

    M = Σ_v u_v u_vᵀ is the metric of the unembedding. The cosine is nan if an effect is zero, if a latent has no
    partner, or if the two runs have different unembeddings. `pairs` has the columns run, latent_id, partner_run and
    partner_id.
    """
    out = np.full(len(pairs), np.nan)
    known = pairs[["run", "partner_run"]].dropna().drop_duplicates()
    for left, right in known.itertuples(index=False):
        if not {left, right} <= set(by_name):  # A projection also has pairs with the runs of a saved embedding.
            continue
        rows = np.flatnonzero(((pairs["run"] == left) & (pairs["partner_run"] == right)).to_numpy())
        a, b = by_name[str(left)], by_name[str(right)]
        metric = None if a.labels is None else a.labels.metric
        if metric is None or b.labels is None or b.labels.metric is None or not np.array_equal(metric, b.labels.metric):
            continue
        at = positions(a, pairs["latent_id"].to_numpy()[rows])
        to = positions(b, pairs["partner_id"].to_numpy()[rows])
        both = (at >= 0) & (to >= 0)
        m = torch.from_numpy(metric)
        x, y = a.directions[at[both]].cpu().double(), b.directions[to[both]].cpu().double()
        p, q = x @ m, y @ m
        norms = ((p * x).sum(1) * (q * y).sum(1)).sqrt()
        out[rows[both]] = ((p * y).sum(1) / norms).clamp(-1, 1).numpy()
    return out


def positions(d: Dictionary, ids: np.ndarray) -> np.ndarray:
    """Return the rows of latents given by original ids, int64 [n]; −1 for ids that the dictionary lacks."""
    return pd.Index(d.latent_ids.cpu().numpy()).get_indexer(pd.Index(ids))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """Convert a column to text, numbers or booleans for Parquet; lists become JSON, and text becomes one short line."""
    if values.dtype != object:
        return values
    known = values.dropna()
    if all(isinstance(v, bool | np.bool_) for v in known):
        return values.astype("boolean")
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in known):
        return values.astype("Float64")
    return values.map(_text, na_action="ignore").astype("string")


def _text(value: Any) -> str:
    if _is_list(value):
        return json.dumps([_token(str(v), _LONGEST_TOKEN) for v in value], ensure_ascii=False)
    return shown(str(value), _LONGEST_TEXT)
