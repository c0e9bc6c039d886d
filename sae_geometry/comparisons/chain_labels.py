"""Labels of the latents of a flow, grouped by fate and listed along selected chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import ends
from sae_geometry.labels.pairs import PairLabels, fitted, pair_labels
from sae_geometry.pairwise.label_columns import label_of

FATES = ("continues", "merges", "dies")


@dataclass(frozen=True)
class Member:
    """Latent of a chain, with its run, original id and one-line label."""

    run: str
    latent_id: int
    label: str


@dataclass(frozen=True)
class Chain:
    """Chain with labels: the sum of the angles of its edges in degrees, and its latents."""

    turned: float
    members: tuple[Member, ...]


@dataclass(frozen=True, eq=False)
class ChainLabels:
    """Labels of the latents of a flow, by fate and along selected chains.

    Attributes:
        pairs: latents grouped by fate, each with the latent that it leads to, and the readable share per fate.
        chains: up to three of the longest chains: those with the smallest, median and largest sum of angles.
    """

    pairs: PairLabels
    chains: tuple[Chain, ...]

    def summary(self) -> dict[str, Any]:
        """Return the readable shares per fate and the chains as a JSON-ready dict."""
        return self.pairs.summary() | {
            "chains": [{"turned": c.turned, "latents": [vars(m) for m in c.members]} for c in self.chains]
        }

    def lines(self) -> list[str]:
        """Return lines of text: latents of each fate, then each chain with one line per layer."""
        made = self.pairs.lines()
        for c in self.chains:
            said = [f"    {m.run}  {m.latent_id}  {m.label}".rstrip() for m in c.members]
            made += [f"  chain that turns by {c.turned:.0f}° in total", *ends(said)]
        return made

    def few_lines(self, room: int) -> list[str]:
        """Return at most `room` lines of text: latents of each fate, then each chain in at most 80 characters."""
        made = self.pairs.few_lines(room - len(self.chains))
        for c in self.chains:
            n = min(len(c.members), 5)  # Only the two ends of a long chain are shown.
            said = ends([fitted(f"{m.latent_id} {m.label}".rstrip(), (68 - 3 * n) // min(n, 4)) for m in c.members], 4)
            made.append(f"  chain {c.turned:4.0f}°  {' → '.join(said)}")
        return made

    def html(self) -> str:
        """Return the labels and chains as HTML tables, with every label escaped."""
        body = ""
        for c in self.chains:
            rows = [f"<td>{escape(m.run)}</td><td>{m.latent_id}</td><td>{escape(m.label)}</td>" for m in c.members]
            body += f"<tr><th colspan='3'>chain that turns by {c.turned:.0f}° in total</th></tr>"
            body += "".join(f"<tr>{row}</tr>" for row in rows)
        return self.pairs.html() + (f"<table><tbody>{body}</tbody></table>" if body else "")


def chain_labels(fates: pd.DataFrame, chains: pd.DataFrame, layers: Sequence[Dictionary]) -> ChainLabels | None:
    """Return the labels of a flow; None if no layer has labels.

    Args:
        fates: one row per latent, except in the last layer: run, latent_id, partner_run, partner_id, cosine, fate.
    """
    pairs = pair_labels(fates, layers, groups=fates["fate"].to_numpy(), names=FATES)
    if pairs is None:
        return None
    longest = chains[(chains["n_layers"] == chains["n_layers"].max()) & (chains["n_layers"] > 1)]
    ordered = longest.sort_values("turned", kind="stable")
    picked = sorted({0, len(ordered) // 2, len(ordered) - 1}) if len(ordered) else []
    return ChainLabels(pairs, tuple(_chain(ordered.iloc[at], layers) for at in picked))


def _chain(row: pd.Series[Any], layers: Sequence[Dictionary]) -> Chain:
    members = []
    for at in range(int(row["first_layer"]), int(row["last_layer"]) + 1):
        d, latent = layers[at], int(row[f"latent_{at}"])
        members.append(Member(d.name, latent, label_of(d, latent)))
    return Chain(float(row["turned"]), tuple(members))
