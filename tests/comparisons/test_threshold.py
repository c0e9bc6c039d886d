"""Tests that a threshold applies wherever a share above it is shown: text, summary, strata and figures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import sae_geometry as sg


@pytest.fixture(scope="module")
def sides() -> list[sg.Dictionary]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 16))
    frequency = np.linspace(1e-5, 0.5, 60)
    return [
        sg.Dictionary.from_decoder(w, latent_axis=0, name=name, frequency=frequency)
        for name, w in (("a", rows), ("b", rows + 0.7 * rng.standard_normal(rows.shape)))
    ]


def legend(ax: plt.Axes) -> str:
    return " ".join(t.get_text() for t in [*ax.get_legend().get_texts()])


def test_compare(sides):
    c = sg.compare(*sides, threshold=0.55, turns=0)
    above = f"{(c.a_to_b.similarity > 0.55).mean():.0%}\u00a0>\u00a00.55"
    assert above in legend(c.plot_ecdf())
    assert above in legend(c.plot_histogram())
    assert "> 0.55" in legend(c.figures()["certainty"].axes[0]).replace("\u00a0", " ").replace("\n", " ")
    assert "> 0.7" not in c.answer()
    details = c.details()
    assert details.count("> 0.55") >= 4  # The answer, the table, and the strata of both sides show it.
    assert "> 0.7" not in details
    rows = [r for r in c.summary()["strata"] if r["by"] == "all but the densest 1%" and r["direction"] == "a_to_b"]
    members = sides[0].frequency < sides[0].frequency.max()
    assert rows[0]["above"] == pytest.approx((c.a_to_b.similarity[members.numpy()] > 0.55).mean())


def test_within(sides):
    w = sg.within(sides[0], threshold=0.4)
    share = float((w.nearest.similarity > 0.4).mean())
    assert f"above 0.4: {share:.1%}" in " ".join(repr(w).split())
    assert w.summary()["fraction_above_threshold"] == share
    assert "> 0.4" in legend(w.plot_ecdf()).replace("\u00a0", " ")
    with pytest.raises(ValueError, match="threshold"):
        sg.within(sides[0], threshold=1.5)


def test_by_index(sides):
    c = sg.compare_by_index(*sides, threshold=0.6)
    assert f"above 0.6: {(c.cosine > 0.6).mean():.1%}" in " ".join(repr(c).split())
    assert c.summary()["fraction_above"]["0.6"] == float((c.cosine > 0.6).mean())


def test_umap(sides):
    e = sg.umap(sides, 5, n_epochs=2, n_seeds=1)
    assert "partner above 0.3 " in legend(e.plot(color="matched", threshold=0.3))
    assert "partner > 0.3 " in legend(e.figures(threshold=0.3)["unmatched"].axes[0])
    plt.close("all")
