"""Tests of small multiples: common bins, shares that add up, and a note for what is unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn import matching
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

import sae_geometry as sg
from sae_geometry.plots import draw_panels, facet_figure, panel_range, panel_shares


@pytest.fixture(scope="module")
def curves():
    return [matching("a", "a", 400, 400), matching("b", "b", 300, 300, seed=1), matching("a", "b", 400, 300, seed=2)]


def words(figure) -> list[str]:
    return [t.get_text() for ax in figure.axes for t in (*ax.texts, ax.title, ax._left_title)]


def test_every_panel_has_the_same_bins_and_axes_and_its_own_numbers(curves):
    figure = Figure(layout="constrained")
    axes = draw_panels(figure, curves, labels=["one", "two", "$three"], colors=["#f0a70a", "#518c31", "#6b6ecf"])
    assert len(axes) == 3
    edges = []
    for ax, curve in zip(axes, curves, strict=True):
        (bars,) = [p for p in ax.patches if isinstance(p, StepPatch)]
        counts, ends, _ = bars.get_data()
        edges.append(ends)
        assert counts.sum() == pytest.approx(1.0), "every value should be on the axis"
        assert (counts * (ends[1:] + ends[:-1]) / 2).sum() == pytest.approx(curve.mmcs, abs=np.ptp(ends) / 100)
        text = " ".join(t.get_text() for t in ax.texts)
        assert f"n = {curve.n_latents:,}" in text
        assert f"mean {curve.mmcs:.3f}" in text
        assert f"chance {curve.chance:.3f}" in text
        lines = {round(float(line.get_xdata()[0]), 6) for line in ax.lines}
        assert {round(v, 6) for v in (curve.mmcs, curve.chance, curve.isotropic_chance)} <= lines
        assert ax.get_ylim() == axes[0].get_ylim()
    assert all((e == edges[0]).all() for e in edges)
    figure.canvas.draw()


def test_negative_similarities_widen_the_bins_of_all(curves):
    names = {"hook_point": "h", "model": "m"}
    far = sg.Dictionary.from_decoder([[-1.0, 0.5], [-1.0, -0.5], [-1.0, 0.0]], latent_axis=0, name="far", **names)
    near = sg.Dictionary.from_decoder([[1.0, 0.1], [1.0, -0.1]], latent_axis=0, name="near", **names)
    cross = sg.compare(far, near).a_to_b
    assert panel_range([cross, curves[0]]) == -1.0
    assert panel_range(curves) == 0.0
    assert panel_shares(cross, np.linspace(-1, 1, 51)).sum() == pytest.approx(1.0)


def test_latents_without_a_partner_count(curves):
    mutual = matching("b", "a", 400, 300, "mutual")
    assert mutual.n_matched < 300
    assert panel_shares(mutual, np.linspace(0, 1, 51)).sum() == pytest.approx(mutual.n_matched / mutual.n_latents)


def test_labels_and_colors_are_one_per_panel(curves):
    with pytest.raises(ValueError, match="got 3 matchings, 2 labels and 3 colors"):
        draw_panels(Figure(), curves, labels=["a", "b"], colors=["k"] * 3)
    with pytest.raises(ValueError, match="one label and one color"):
        draw_panels(Figure(), [], labels=[], colors=[])


def points() -> pd.DataFrame:
    nan = float("nan")
    return pd.DataFrame(
        {
            "row": ["Layer 2", "Layer 2", "Layer 6", "Layer 6"],
            "kind": ["local", "e2e", "local", "other"],
            "run": ["a", "b", "c", "d"],
            "mmcs": [0.4, 0.2, 0.5, 0.3],
            "l0": [20.0, 30.0, 25.0, nan],
            "ce": [nan, nan, 0.1, 0.2],
        }
    )


def test_facets_draw_what_is_known_and_say_what_is_not():
    figure = facet_figure(points(), {"l0": "L0", "ce": "loss"})
    shown = [[tuple(p) for c in ax.collections for p in c.get_offsets().data] for ax in figure.axes]
    assert [sorted(s) for s in shown] == [
        [(20.0, 0.4), (30.0, 0.2)], [], [(25.0, 0.5)], [(0.1, 0.5), (0.2, 0.3)]
    ]  # fmt: skip
    text = words(figure)
    assert text.count("not available") == 1
    assert text.count("1 of 2 not available") == 1
    assert {"Layer 2", "Layer 6"} <= set(text)
    figure.canvas.draw()


def test_facets_need_their_columns():
    with pytest.raises(ValueError, match="missing: alive"):
        facet_figure(points(), {"alive": "alive latents"})
    with pytest.raises(ValueError, match="missing: runs"):
        facet_figure(points().iloc[:0], {"l0": "L0"})
