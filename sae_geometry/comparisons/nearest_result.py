"""Result of a search for nearest latents: the hits with their labels and links, and the searched dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, few, or_dash
from sae_geometry.labels.pairs import fitted
from sae_geometry.matching.defaults import DISCOVERY_RATE
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.label_columns import label_of, label_text, table_columns
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_RECORDS = 10_000
_SHOWN = 5  # maximum number of vectors printed
_ROWS = 10  # maximum number of hits printed


@dataclass(frozen=True, eq=False, repr=False)
class Nearest(Answer):
    """The k latents nearest to each vector among all latents of the searched dictionaries.

    Attributes:
        vectors: the vectors, as unit rows.
        searched: description of each searched dictionary: name, address, size, space, fingerprint.
        signed: whether hits are ranked by cosine or by |cosine|.
        run: int64 [n, k], position in `searched` of each hit's dictionary; −1 where there are fewer than k latents.
        latent_id: int64 [n, k], original id of each hit; −1 where there is no hit.
        cosine: float64 [n, k], signed cosine of each hit; nan where there is no hit.
        plain_cosine: float64 [n, k], cosine before a linear map of both sides (`mapped`); nan if there is no map.
        p_value: float64 [n, k], (1 + number of turns with a cosine at least as large) / (1 + turns); nan if turns = 0.
        expected: float64 [n], the largest cosine, averaged over the turns.
        turns: number of random turns.
        labels: labels of each hit, in the order of `to_pandas`; empty if the latent has no labels.
        sources: origin of the labels.
        skipped: dictionaries of a folder that were not searched, with the reasons.
        caveats: notes on the dictionaries, and assumptions about their spaces.
    """

    vectors: Dictionary
    searched: tuple[Mapping[str, Any], ...]
    signed: bool
    run: np.ndarray
    latent_id: np.ndarray
    cosine: np.ndarray
    plain_cosine: np.ndarray
    p_value: np.ndarray
    expected: np.ndarray
    turns: int
    labels: tuple[Mapping[str, Any], ...]
    sources: tuple[str, ...]
    skipped: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def n_candidates(self) -> int:
        """Return the number of latents searched."""
        return sum(d["n_latents"] for d in self.searched)

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Return the vectors; the searched dictionaries are not held in memory."""
        return (self.vectors,)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per vector and rank: vector, vector_id, rank, run, latent_id, cosine, p_value, address, link.

        plain_cosine follows cosine if both sides were mapped. `link` is the latent's page on Neuronpedia; None if
        unknown. Label columns follow, as in the other tables: tokens, explanation, density, `label:NAME`.
        """
        at, rank = np.nonzero(self.run >= 0)
        runs, ids = self.run[at, rank], self.latent_id[at, rank]
        pages = [d["pages"] for d in self.searched]
        before = {} if np.isnan(self.plain_cosine).all() else {"plain_cosine": self.plain_cosine[at, rank]}
        return pd.DataFrame(
            {
                "vector": self.vectors.name,
                "vector_id": self.vectors.latent_ids.numpy()[at],
                "rank": rank + 1,
                "run": [self.searched[r]["name"] for r in runs],
                "latent_id": ids,
                "cosine": self.cosine[at, rank],
                **before,
                "p_value": self.p_value[at, rank],
                "address": [self.searched[r]["address"] for r in runs],
                "link": [f"{pages[r]}/{i}" if pages[r] else None for r, i in zip(runs, ids, strict=True)],
                **table_columns(pd.DataFrame(self.labels)),
            }
        )

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: nearest."""
        return {"nearest": self.to_pandas()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: nearest."""
        from sae_geometry import plots

        return {"nearest": plots.figure_of(lambda ax: plots.nearest_ranks(self, ax), 3.25, 3.0)}

    @property
    def method(self) -> str:
        searched = ", ".join(str(d["name"]) for d in self.searched[:12])
        more = f" and {len(self.searched) - 12:,} more" if len(self.searched) > 12 else ""
        p = f"A p-value is the {self._meaning_of_p.removeprefix('p: ')}." if self.turns else "There are no p-values."
        return (
            f"We searched {counted(self.n_candidates, 'latent')} of {searched}{more} for the nearest to each vector of "
            f"{self.vectors.name}, by {methods.measure('decoder', self.signed)}. {methods.EXACT} {p}"
        )

    @property
    def _meaning_of_p(self) -> str:
        if not self.turns:
            return "no p-values: the dictionaries were not turned"
        return (
            f"p: share of {self.turns:,} orthogonal turns of every dictionary (mean and second moment preserved) in "
            f"which any latent is at least as close; the minimum is {1 / (self.turns + 1):.2g}"
        )

    def summary(self) -> dict[str, Any]:
        """Return the inputs and at most 10,000 hits as a JSON-ready dict; the table has all hits."""
        hits = self.to_pandas()
        return {
            "inputs": {"vectors": describe_input(self.vectors), "searched": [dict(d) for d in self.searched]},
            "similarity": "decoder cosine" if self.signed else "absolute decoder cosine",
            "n_vectors": self.vectors.n_latents,
            "n_dictionaries": len(self.searched),
            "n_candidates": self.n_candidates,
            "turns": self.turns,
            "p_value_means": self._meaning_of_p,
            "n_hits": len(hits),
            "nearest": hits.head(_MOST_RECORDS).astype(object).where(hits.notna(), None).to_dict("records"),
            "label_sources": list(self.sources),
            "expected_largest_by_chance": self.expected[:_MOST_RECORDS].tolist(),
            "skipped": list(self.skipped),
            "caveats": list(self.caveats),
        }

    @property
    def sentences(self) -> str:
        best = int(np.nanargmax(np.abs(self.cosine[:, 0])))
        said = (
            f"The largest cosine of {self.vectors.name} to any of the {self.n_candidates:,} latents searched is "
            f"{self.cosine[best, 0]:.3f}, to latent {self.latent_id[best, 0]} of "
            f"{self.searched[self.run[best, 0]]['name']}."
        )
        return f"{said} {self._significant.capitalize()}." if self.turns else said

    @property
    def _significant(self) -> str:
        close = int((self.p_value[:, 0] <= DISCOVERY_RATE).sum())
        return f"vectors with a latent at p ≤ {DISCOVERY_RATE:g}: {close:,} of {self.vectors.n_latents:,}"

    def _lines(self) -> list[str]:
        n = self.vectors.n_latents
        one = shown(self.searched[0]["name"], 40)
        where = repr(one) if len(self.searched) == 1 else f"{len(self.searched):,} dictionaries"
        per_vector = max(1, _ROWS // min(n, _SHOWN))
        found = self.to_pandas().assign(label=[label_text(row) for row in self.labels])
        hits = found[(found["rank"] <= per_vector) & found["vector_id"].isin(self.vectors.latent_ids[:_SHOWN].tolist())]
        left = len(found) - len(hits)
        return [
            f"Nearest of {counted(self.n_candidates, 'latent')} of {where} to {shown(self.vectors.name, 40)!r}, "
            f"{counted(n, 'vector')} × {self.vectors.d_in:,} ({'' if self.signed else 'absolute '}cosine)",
            *([f"  {self._significant}"] if self.turns else []),
            *(f"  {line}" for line in aligned(self._rows(hits))),
            *([f"  … and {counted(left, 'more hit')}: see nearest.parquet"] if left else []),
            *(f"  not searched: {shown(text, 60)}" for text in self.skipped[:1]),
            *([f"  labels: {shown('; '.join(self.sources), 68)}"] if self.sources else []),
        ]

    def _rows(self, hits: pd.DataFrame) -> list[tuple[str, ...]]:
        """Return a header and one row per hit for a table; if there are no turns, `by chance` and `p` are left out."""
        chance = dict(zip(self.vectors.latent_ids.tolist(), self.expected, strict=True))
        listed: Any = hits.itertuples()
        rows = [("vector", "by chance", "run", "latent", "cosine", "p", "label")]
        rows += [
            (f"{h.vector_id}" if h.rank == 1 else "", f"{chance[h.vector_id]:.3f}" if h.rank == 1 else "",
             shown(h.run, 16), f"{h.latent_id}", f"{h.cosine:.4f}", or_dash(h.p_value, ".2g"), fitted(h.label, 20))
            for h in listed
        ]  # fmt: skip
        return [row if self.turns else (row[0], *row[2:5], row[6]) for row in rows]

    def _definitions(self) -> list[str]:
        pages = [h for h in self.to_pandas().head(_ROWS).itertuples() if h.link]
        vectors = self.vectors.latent_ids[:_SHOWN].tolist()
        return [
            f"  {self._meaning_of_p}",
            "  by chance: the largest cosine, averaged over the turns",
            *(f"  vector {v}: {text}" for v in vectors if (text := label_of(self.vectors, v))),
            *(f"  {h.run} {h.latent_id}: {h.link}" for h in pages),
            *(f"  not searched: {text}" for text in few(self.skipped, _SHOWN)),
            *([f"  labels: {'; '.join(self.sources)}"] if self.sources else []),
        ]
