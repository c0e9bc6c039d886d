"""Labels of paired latents, the overlap of their tokens, and the share of latents that are readable."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, known_mean, or_dash
from sae_geometry.io.labels import Labels
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.nulls.competition import Share, share_of
from sae_geometry.pairwise.label_columns import label_columns, label_text, logit_cosine, token_overlap

GROUPS = ("most alike", "in between", "without a partner")
_ROWS = 3  # examples per group
_DIFFER = "explainers differ"
_UNIT = "intervals: 95% over latents, with partners counted as one; other seeds may differ by more"
_FITTED, _ALONE = 18, 46  # characters per label, if a line of 80 characters has two labels or one


@dataclass(frozen=True, eq=False)
class PairLabels:
    """Labels of latents and their partners, grouped by similarity.

    Attributes:
        table: one row per latent: run, latent_id, partner_run, partner_id, cosine (nan without a partner), group.
        own, partner: labels of each row's latent and of its partner, in the order of `table`.
        overlap: float64 [n], share of top tokens that a pair has in common; nan if unknown.
        logits: float64 [n], cosine of the effects of the two latents on the logits; nan if unknown.
        sources: one sentence per source of tokens or explanations.
    """

    table: pd.DataFrame
    own: pd.DataFrame
    partner: pd.DataFrame
    overlap: np.ndarray
    logits: np.ndarray
    sources: tuple[str, ...]
    names: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return the readable shares, mean token overlap and mean logit cosine of each group as a JSON-ready dict."""
        return {"sources": list(self.sources), "groups": [self._group(name) for name in self.names]}

    def _group(self, name: str) -> dict[str, Any]:
        rows = (self.table["group"] == name).to_numpy()
        record: dict[str, Any] = {"group": name, "n": int(rows.sum())}
        for key, (n, share) in self._shares(rows).items():
            record[key] = {"value": share.value, "low": share.low, "high": share.high, "n": n, "n_independent": share.n}
        for key, values in (("token_overlap", self.overlap[rows]), ("logit_cosine", self.logits[rows])):
            if not math.isnan(mean := known_mean(values)):
                record[key] = mean
        return record

    @cached_property
    def _units(self) -> np.ndarray:
        """The independent unit of each row, int64 [n]: latents linked as partners, directly or via others, share one.

        Partners promote similar tokens, so their labels are not independent. Latents of the last group have no
        significant partner, so each is a separate unit.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n, table = len(self.table), self.table
        linked = np.flatnonzero((table["partner_id"] >= 0).to_numpy() & (table["group"] != self.names[-1]).to_numpy())
        runs = pd.concat([table["run"], table["partner_run"].iloc[linked]])
        ids = pd.concat([table["latent_id"], table["partner_id"].iloc[linked]])
        latent = pd.MultiIndex.from_arrays([runs, ids]).factorize()[0]
        links = coo_array((np.ones(len(linked)), (latent[linked], latent[n:])), shape=(len(latent), len(latent)))
        return np.asarray(connected_components(links, directed=False)[1][latent[:n]])

    def _shares(self, rows: np.ndarray) -> dict[str, tuple[int, Share]]:
        """Return the shares of latents readable (FDR 5%) and beyond chance (2 · wins − 1), with their sample sizes."""
        found = {}
        if "readable" in self.own:
            known = self.own["readable"][rows].dropna().astype(bool)
            found["readable"] = (len(known), self._share(known))
        if {"token_cosine", "turned_token_cosine"} <= set(self.own.columns):
            both = self.own.loc[rows, ["token_cosine", "turned_token_cosine"]].dropna().astype(float)
            wins = self._share(both["token_cosine"] > both["turned_token_cosine"])
            beyond = Share(2 * wins.value - 1, 2 * wins.low - 1, 2 * wins.high - 1, wins.n)
            found["readable_beyond_chance"] = (len(both), beyond)
        return {key: (n, share) for key, (n, share) in found.items() if n}

    def _share(self, which: pd.Series[Any]) -> Share:
        """Return the share of true rows, with an interval for the effective number of independent latents.

        Rows of the same unit may agree completely, so n rows in units of sizes s₁, s₂, … count as n² / Σ sᵢ²
        independent latents (Kish's effective sample size).
        """
        sizes = np.unique(self._units[which.index], return_counts=True)[1]
        independent = round(len(which) ** 2 / float((sizes**2).sum())) if len(which) else 0
        return share_of(float(which.mean()) * independent, independent)

    def lines(self) -> list[str]:
        """Return lines of text with a few labeled pairs of each group and its share of readable latents."""
        head, *rows = self._cells()
        made = [f"labels: {'; '.join(self.sources)}", *(f"  {line}" for line in aligned([head, *rows]))]
        return [*made, *(f"  {line}" for line in self._share_lines())]

    def few_lines(self, room: int) -> list[str]:
        """Return one to three labeled pairs of each group and its share of readable latents, in about `room` lines.

        Lines have at most 80 characters. A pair takes one line, or two lines if any latent has an explanation.
        """
        examples = {name: rows for name in self.names if (rows := self._examples(name))}
        shares = [self._shares((self.table["group"] == name).to_numpy()).get("readable") for name in examples]
        said = ", ".join("–" if s is None else f"{s[1].value:.0%} [{s[1].low:.0%}, {s[1].high:.0%}]" for s in shares)
        below = [f"  readable (FDR 5%): {said}"] if any(shares) else []  # The shares follow the order of the groups.
        for text in self.sources:
            if text.startswith(_DIFFER):
                below += textwrap.wrap(text, 80, initial_indent="  ! ", subsequent_indent="    ")
        several = [self._few(examples, n) for n in range(_ROWS, 1, -1)]
        fitting = (made for made in several if len(made) + len(below) <= room)
        return [*next(fitting, self._few(examples, 1)), *below]

    def _few(self, examples: Mapping[str, Sequence[int]], n: int) -> list[str]:
        """Return lines with the first `n` examples of each group; the first line of a group starts with its name."""
        explained = any("explanation" in side for side in (self.own, self.partner))
        most = _ALONE if explained else _FITTED
        made = []
        for name, rows in examples.items():
            for at, i in enumerate(rows[:n]):
                row = self.table.iloc[i]
                sides = [(row["latent_id"], self.own.iloc[i])]
                sides += [(row["partner_id"], self.partner.iloc[i])] if row["partner_id"] >= 0 else []
                words = [f"{latent:>6} {fitted(label_text(labels), most):<{most}}" for latent, labels in sides]
                begin = f"  {'' if at else name[:17]:<17} {or_dash(row['cosine'], '.2f'):>5}  "
                between = "\n" + " " * len(begin) if explained else "  "
                made += [line.rstrip() for line in (begin + between.join(words)).split("\n")]
        return made

    def html(self) -> str:
        """Return a few labeled pairs of each group and its share of readable latents as HTML, with labels escaped."""
        head, *rows = [[escape(cell) for cell in row] for row in self._cells()]
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        said = "".join(f"<li>{escape(line)}</li>" for line in (*self.sources, *self._share_lines()))
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table><ul>{said}</ul>"

    def _share_lines(self) -> list[str]:
        said = {"readable": "readable (FDR 5%)", "readable_beyond_chance": "readable beyond chance (2 × wins − 1)"}
        found = [(name, self._shares((self.table["group"] == name).to_numpy())) for name in self.names]
        lines = []
        for key, words in said.items():
            parts = [_share_words(name, *shares[key]) for name, shares in found if key in shares]
            if parts:
                lines.append(f"{words}: {'; '.join(parts)}")
        return [*lines, _UNIT] if lines else []

    def _cells(self) -> list[tuple[str, ...]]:
        """Return the header and a few rows of each group for the table of pairs, without empty columns."""
        rows = [i for name in self.names for i in self._examples(name)]
        shown_rows = self.table.iloc[rows].to_dict("records")
        run, partner = (_only_name([row[column] for row in shown_rows]) for column in ("run", "partner_run"))
        its_name = "partner" if partner in ("", run) else partner
        columns = [
            ("", [row["group"] for row in shown_rows]),
            ("cosine", [or_dash(row["cosine"], ".2f") for row in shown_rows]),
            (run or "latent", [_name(row["run"], row["latent_id"], run) for row in shown_rows]),
            ("label", [label_text(self.own.iloc[i]) for i in rows]),
            (its_name, [_name(row["partner_run"], row["partner_id"], partner) for row in shown_rows]),
            ("its label", [label_text(self.partner.iloc[i]) for i in rows]),
            ("overlap", [or_dash(self.overlap[i], ".2f") for i in rows]),
            ("logits", [or_dash(self.logits[i], ".2f") for i in rows]),
        ]
        kept = [(name, *cells) for name, cells in columns if any(cell not in ("", "–") for cell in cells)]
        return list(zip(*kept, strict=True))

    def _examples(self, name: str) -> list[int]:
        """Return example rows of a group, one per unit: the most similar, the quartiles, or the least similar."""
        members = (self.table["group"] == name).to_numpy()
        # A table with both directions contains each pair twice, so show examples from one run only.
        first_run = members & (self.table["run"] == self.table["run"].iloc[0]).to_numpy()
        rows = np.flatnonzero(first_run if first_run.any() else members)
        labeled = self.own.notna().any(axis=1).to_numpy()[rows]
        rows = rows[labeled] if labeled.any() else rows  # Prefer labeled latents if only a few have labels.
        cosine = np.nan_to_num(self.table["cosine"].to_numpy(dtype=np.float64)[rows], nan=-2.0)
        rows = rows[np.argsort(-np.abs(cosine) if name == self.names[0] else -cosine, kind="stable")]
        rows = rows[np.sort(np.unique(self._units[rows], return_index=True)[1])]
        if len(rows) <= _ROWS or name == self.names[0]:
            return [int(i) for i in rows[:_ROWS]]
        if name == self.names[-1]:
            return [int(i) for i in rows[-_ROWS:]]
        return [int(rows[len(rows) * q // 4]) for q in (1, 2, 3)]


def pair_labels(
    table: pd.DataFrame,
    dictionaries: Sequence[Dictionary],
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    names: tuple[str, ...] = GROUPS,
    signed: bool = True,
    threshold: float = THRESHOLD,
) -> PairLabels | None:
    """Join labels to pairs of latents; return None if no dictionary has labels.

    Args:
        table: one row per latent: run, latent_id, cosine; for pairs also partner_run, partner_id (or −1), significant.
        groups: group of each row, by default significant above the threshold, significant below it, or not significant.
        signed: whether two latents are alike only if their cosine is positive.
        threshold: cosine above which a significant pair is in the group "most alike".
    """
    if all(d.labels is None for d in dictionaries):
        return None
    by_name = {d.name: d for d in dictionaries}
    pairs = pd.DataFrame({"run": table["run"], "latent_id": table["latent_id"], "cosine": table["cosine"]})
    pairs["partner_run"] = table.get("partner_run")
    pairs["partner_id"] = table.get("partner_id", pd.Series(-1, index=table.index))
    groups = np.array(names, dtype=object)[_groups(table, signed, threshold)] if groups is None else groups
    pairs["group"] = np.asarray(groups, dtype=object)
    pairs = pairs.reset_index(drop=True)
    own = label_columns(pairs["run"], pairs["latent_id"], by_name)
    partner = label_columns(pairs["partner_run"], pairs["partner_id"], by_name)
    return PairLabels(
        pairs,
        own,
        partner,
        token_overlap(own.get("tokens"), partner.get("tokens"), len(pairs)),
        logit_cosine(pairs, by_name),
        sources_of({d.name: d.labels for d in dictionaries if d.labels is not None}),
        names,
    )


def _groups(table: pd.DataFrame, signed: bool, threshold: float) -> np.ndarray:
    cosine = table["cosine"].to_numpy(dtype=np.float64)
    alike = (cosine if signed else np.abs(cosine)) > threshold
    found = table["significant"].to_numpy(dtype=bool) & (table["partner_id"].to_numpy() >= 0)
    return np.where(found & alike, 0, np.where(found, 1, 2))


def label_summary(labels: PairLabels | None) -> dict[str, Any]:
    """Return {"labels": …} for a JSON summary; an empty dict if there are no labels."""
    return {} if labels is None else {"labels": labels.summary()}


def sources_of(labels: Mapping[str, Labels]) -> tuple[str, ...]:
    """Return sentences that name the sources of all tokens and explanations, and warn if the explainers differ."""
    said: dict[str, None] = {}
    explained = {}
    for name, own in labels.items():
        for column, source in own.sources.items():
            if column == "tokens":
                said[f"tokens by {shown(source)}"] = None
            if column == "explanation":
                explained[name] = shown(source)
    said |= dict.fromkeys(f"explanations of {name}: {source}" for name, source in explained.items())
    explainers = {source.rpartition(", by ")[2] for source in explained.values()}
    if len(explainers) > 1:
        said[f"{_DIFFER} ({', '.join(sorted(explainers))}): do not compare their explanations"] = None
    return tuple(said)


def _only_name(runs: Sequence[object]) -> str:
    """Return the run's name if all rows are from the same run, as the header of its column; otherwise return ""."""
    names = {run for run in runs if isinstance(run, str)}
    return shown(names.pop(), 30) if len(names) == 1 else ""


def _name(run: object, latent: int, only: str) -> str:
    return "" if latent < 0 else f"{latent}" if only else f"{run} {latent}"


def fitted(text: str, most: int = _FITTED) -> str:
    """Shorten a label to at most `most` characters, at the end of a word if possible."""
    if len(text) <= most:
        return text
    cut = text[: most - 1]
    return f"{cut.rpartition(' ')[0] or cut}…"


def _share_words(name: str, n: int, share: Share) -> str:
    independent = "" if share.n == n else f" ({share.n:,} independent)"
    return f"{name} {_percent(share.value)} [{_percent(share.low)}, {_percent(share.high)}] of {n:,}{independent}"


def _percent(share: float) -> str:
    return f"{round(share, 2) + 0.0:.0%}"  # Adding 0.0 avoids "-0%".
