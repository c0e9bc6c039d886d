"""Make the figures of the README from the demo dictionaries: `python -m analyses.demo.make_figures`.

Each figure is written to `figures/` with a JSON sidecar that records its command, commit and weights.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

import sae_geometry as sg
from analyses.common.figures import ROOT, source_of, write_figure

COMMAND = "python -m analyses.demo.make_figures"


def main(folder: Path) -> None:
    """Write every figure to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [sg.load(f"demo:{kind}-seed{k}") for kind in ("local", "e2e-ds", "e2e") for k in (0, 1)]
    local = runs[:2]
    comparison = sg.compare(local[0], local[1])
    embedding = sg.umap(local)

    write(hero(comparison, embedding), folder / "seeds", local)
    write(multiplicity(comparison), folder / "multiplicity", local)
    paired = comparison.one_to_one()
    curves = [comparison.a_to_b, comparison.b_to_a, paired.a_to_b, paired.b_to_a]
    write(sg.plots.similarity_figure(curves), folder / "similarity", local)
    write(counting(comparison), folder / "counting", local)
    write(within(runs), folder / "within", runs)
    write(sg.plots.seeds_figure(sg.seeds(runs)), folder / "runs", runs)
    write(sg.plots.agreement_figure(sg.agreement(*local)), folder / "agreement", local)
    split = sg.split("demo:local-narrow-seed0", local[0])
    write(sg.plots.splitting_figure(split), folder / "splitting", [split.narrow, split.wide])


GROUPS = (("cosine above 0.7", "#0072B2"), ("significant", "#56B4E9"), ("not significant", "#BBBBBB"))


def hero(comparison: sg.Comparison, embedding: sg.Embedding) -> Figure:
    """Draw the cosines of two seeds' latents to their partners, an example pair per group, and a UMAP of both seeds."""
    table = comparison.to_pandas()
    table["group"] = np.select([table.cosine > 0.7, table.significant], [0, 1], default=2)
    with sg.plots.paper_style():
        figure = Figure(figsize=(sg.plots.PAGE_WIDTH, 3.35), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        _partners(left, comparison, table[table.direction == "a_to_b"])
        _map(right, embedding, table)
    return figure


def _partners(ax: Axes, comparison: sg.Comparison, table: pd.DataFrame) -> None:
    """Draw a histogram of the cosine to the nearest partner, stacked by group, with the shares."""
    edges = np.linspace(0, 1, 51)
    parts = [table.cosine[table.group == g] for g in (2, 1, 0)]
    ax.hist(parts, bins=list(edges), stacked=True, color=[GROUPS[g][1] for g in (2, 1, 0)])
    top = ax.get_ylim()[1]
    chance, mean = comparison.a_to_b.chance, comparison.a_to_b.mmcs
    for at, height, words in (
        (chance, 0.6, f"mean chance {chance:.2f}\n(it differs by latent)"),
        (mean, 0.6, f"MMCS {mean:.2f}:\nfew are there"),
    ):
        ax.axvline(at, ymax=height, color="0.3", linewidth=0.8, linestyle=":")
        ax.text(at + 0.01, height * top, words, color="0.3", fontsize=6.5, va="top")
    labels = zip(GROUPS, (0.985, 0.58, 0.215), (0.95, 0.43, 0.95), ("right", "center", "left"), strict=True)
    for group, ((name, color), x, y, side) in enumerate(labels):
        share, ink = (table.group == group).mean(), "0.45" if group == 2 else color
        ax.text(x, y * top, f"{share:.0%}", color=ink, fontsize=13, fontweight="bold", ha=side, va="top")
        ax.text(x, (y - 0.085) * top, name, color=ink, ha=side, va="top")
        words = pair_in_words(comparison, table[table.group == group])
        room = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # hides the dotted lines behind the text
        ax.text(x, (y - 0.145) * top, words, color=ink, fontsize=6.5, ha=side, va="top", bbox=room)
    ax.set(xlim=(0, 1), xlabel="decoder cosine to the nearest latent of the other seed", ylabel="latents of seed 0")
    ax.set_title("Two seeds of one sparse autoencoder", loc="left", fontweight="bold")


def pair_in_words(comparison: sg.Comparison, table: pd.DataFrame) -> str:
    """Return the top tokens of a pair: the latent that promotes words and is nearest to a token, and its partner."""
    own, other = (d.labels.frame for d in comparison.dictionaries if d.labels is not None)
    told = own.loc[table.latent_id]
    written = [all(map(is_word, tokens[:3])) for tokens in told.tokens]
    at = int(np.where(written, told.token_cosine, -1.0).argmax())
    pair = (told.tokens.iloc[at], other.tokens[table.partner_id.iloc[at]])
    return "\n".join(" ".join(token.strip() for token in tokens[:3]) for tokens in pair)


def is_word(token: str) -> bool:
    """Return whether a token consists of at least three letters."""
    return len(token.strip()) > 2 and token.strip().isalpha()


def _map(ax: Axes, embedding: sg.Embedding, table: pd.DataFrame) -> None:
    """Draw the UMAP of both runs, each latent in its group's color."""
    groups = table.set_index(["run", "latent_id"]).group
    names = np.array(embedding.names)[embedding.owner]
    group = groups.loc[list(zip(names, embedding.latent_id, strict=True))].to_numpy()
    order = np.random.default_rng(0).permutation(len(group))
    colors = np.array([color for _, color in GROUPS])[group]
    x, y = embedding.coords[order].T
    ax.scatter(x, y, c=colors[order], s=2.5, linewidths=0, rasterized=True)
    for region in (r for r in embedding.regions.regions if r.marks):
        marks = [mark.token.strip() for mark in region.marks]
        word = next(filter(is_word, marks), marks[0])
        text = ax.text(*region.center, word, fontsize=6.5, ha="center", va="center")
        text.set_path_effects([Stroke(linewidth=1.8, foreground="white"), Normal()])
    ax.set_aspect("equal", adjustable="datalim")
    ax.axis("off")
    ax.set_title(f"both seeds, {len(group):,} latents: where they lie", loc="left")
    line = textwrap.fill(f"UMAP, exact cosine neighbors: {'; '.join(embedding.evidence.lines())}", 68)
    ax.text(0, -0.02, line, transform=ax.transAxes, fontsize=6, color="0.45", va="top")


def multiplicity(comparison: sg.Comparison) -> Figure:
    """Draw how many latents share a nearest partner."""
    with sg.plots.paper_style():
        figure = Figure(figsize=(3.8, 2.5), layout="constrained")
        comparison.plot_multiplicity(ax=figure.subplots())
    return figure


def counting(comparison: sg.Comparison) -> Figure:
    """Draw the mean similarity of the same pair by each matching."""
    with sg.plots.paper_style():
        figure = Figure(figsize=(4.2, 2.4), layout="constrained")
        comparison.plot_double_counting(ax=figure.subplots())
    return figure


def within(dictionaries: Sequence[sg.Dictionary]) -> Figure:
    """Draw how redundant each dictionary is."""
    return sg.plots.similarity_figure([sg.within(d).nearest for d in dictionaries])


def write(figure: Figure, stem: Path, dictionaries: Sequence[sg.Dictionary]) -> None:
    """Write a figure as PNG and PDF with its sidecar."""
    write_figure(figure, stem, [source_of(d) for d in dictionaries], command=COMMAND)
    print(f"wrote {stem.name}.png, .pdf and .json")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "figures")
