"""Tests of the figures of embeddings: every point is drawn once, with the value or the run that it has."""

from __future__ import annotations

import re
import zlib

import numpy as np
import oracles
import pytest
from drawn import embedding, labels_of
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import sae_geometry as sg
from sae_geometry import plots
from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.region_file import Shape
from sae_geometry.plots.embedding import _legend
from sae_geometry.plots.style import E2E_KINDS, RUNS, run_colors


def test_scatter_is_shuffled_rasterised_and_complete():
    e = embedding("ab", 400)
    ax = plots.embedding_scatter(e)
    points = ax.collections[0]
    assert points.get_rasterized()
    assert len(points.get_offsets()) == 800
    # In order of runs the later half would have one color; shuffled, each half is a fair mixture.
    colors = points.get_facecolors()[:, :3]
    first = to_rgba(RUNS[0])[:3]
    is_a = np.isclose(colors, first).all(axis=1)
    assert is_a.sum() == 400
    assert abs(int(is_a[:400].sum()) - 200) < 50
    # Every point keeps the color of its run.
    where = {tuple(xy): own for xy, own in zip(e.coords.tolist(), e.owner, strict=True)}
    owners = np.array([where[tuple(xy)] for xy in np.asarray(points.get_offsets(), dtype=np.float32).tolist()])
    np.testing.assert_array_equal(owners == 0, is_a)
    assert "trustworthiness" in ax.get_xlabel()
    assert ax.get_xticks().size == 0


def test_paper_colors_go_by_kind():
    colors = run_colors(["x", "y", "z"], ["local", "local", "e2e"], "e2e")
    assert colors["x"] == E2E_KINDS["local"]
    assert colors["z"] == E2E_KINDS["e2e"]
    assert len(set(colors.values())) == 3
    with pytest.raises(ValueError, match="okabe-ito"):
        run_colors(["x"], [None], "rainbow")


def test_scatter_is_an_image_inside_the_pdf(tmp_path):
    figure = plots.embedding_scatter(embedding("a", 200)).figure
    plots.save_figure(figure, tmp_path / "umap", {}, ("pdf",))
    pdf = (tmp_path / "umap.pdf").read_bytes()
    assert b"/Subtype /Image" in pdf
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S)
    page = b"".join(_inflate(s) for s in streams)
    assert page.count(b" re\n") < 200  # There is not one path per point.


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


@pytest.fixture(scope="module")
def views():
    """Embed two runs that share half their directions; one has firing frequencies, some of them zero."""
    rng = np.random.default_rng(0)
    a, b = oracles.related_decoders(rng, n=160, m=140, d=12, shared=80)
    frequency = rng.random(160) * 0.1
    frequency[:10] = 0
    kinds = {"latent_axis": 0, "hook_point": "h", "model": "m"}
    return sg.umap(
        [
            Dictionary.from_decoder(a, name="a", frequency=frequency, **kinds),
            Dictionary.from_decoder(b, name="b", **kinds),
        ],
        n_epochs=30,
        n_seeds=1,
    ).with_regions(12)


def drawn_at(ax, e):
    """Return the latents whose points each scatter of the axes holds."""
    where = {tuple(xy): i for i, xy in enumerate(e.coords.tolist())}
    return [
        np.array([where[tuple(xy)] for xy in np.asarray(s.get_offsets(), dtype=np.float32).tolist()])
        for s in ax.collections
        if len(s.get_offsets())
    ]


def test_colored_by_cosine_every_point_has_its_value(views):
    ax = views.plot(color="max-cosine")
    [at] = drawn_at(ax, views)
    np.testing.assert_array_equal(ax.collections[0].get_array(), views.to_pandas()["max_cosine"].to_numpy()[at])
    assert ax.collections[0].get_clim()[1] == 1.0
    assert "nearest latent of another run" in ax.figure.axes[1].get_xlabel()


def test_unknown_frequency_is_shown_as_unknown_and_never_as_the_least(views):
    ax = views.plot(color="frequency")
    unknown, known = drawn_at(ax, views)
    assert set(unknown) == set(range(160, 300))
    assert "unknown (140)" in ax.get_legend().get_texts()[0].get_text()
    values = views.to_pandas()["frequency"].to_numpy(dtype=float, na_value=np.nan)
    low = values[values > 0].min()
    np.testing.assert_array_equal(ax.collections[1].get_array(), np.maximum(values[known], low))
    assert "never" in ax.figure.axes[1].get_xlabel()


def test_matched_means_a_one_to_one_partner_above_the_threshold(views):
    cosine = views.to_pandas()["one_to_one_cosine"].fillna(-1).to_numpy()
    ax = views.plot(color="matched")
    labels = labels_of(ax)
    assert labels == [f"one-to-one partner above 0.7 ({(cosine > 0.7).sum()})", f"none ({(cosine <= 0.7).sum()})"]
    alone = plots.unmatched_scatter(views, threshold=0.9)
    matched, unmatched = drawn_at(alone, views)
    assert set(unmatched) == set(np.flatnonzero(cosine <= 0.9))
    assert len(matched) + len(unmatched) == 300


def test_regions_have_their_letters_and_no_two_touch(views):
    ax = views.plot(color="region")
    letters = {t.get_text(): t.get_position() for t in ax.texts}
    assert set(letters) == {r.letter for r in views.regions.regions}
    assert len(letters) > 1
    assert not ax.patches, "no hull should be drawn: it would cover points outside the region"
    assert not len(ax.get_xticks())
    box = Shape("Z", ((-99.0, -99.0), (99.0, -99.0), (99.0, 99.0)))
    assert len(views.with_regions(shapes=[box]).plot(color="region").patches) == 1, "a given outline should be drawn"
    close = plots.embedding._apart(np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.0], [5.0, 5.0]]), 1.0)
    gaps = np.linalg.norm(close[:, None] - close[None], axis=2) + 9 * np.eye(4)
    assert gaps.min() >= 0.99
    np.testing.assert_allclose(close[3], [5, 5], atol=1e-3)


def test_regions_next_to_each_other_differ_in_color():
    rng = np.random.default_rng(0)
    for n in (2, 6, 7, 30, 60):
        centers = rng.uniform(0, 1, (n, 2))
        hues = np.array(plots.embedding._apart_in_hue(centers))
        gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2) + 9 * np.eye(n)
        assert (hues[gaps.argmin(axis=1)] != hues).mean() > (0.99 if n < 7 else 0.9)


def test_a_panel_per_run_over_all_points_in_grey(views):
    figure = plots.runs_figure(views)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a (160)", "b (140)"]
    for run, ax in enumerate(figure.axes):
        everyone, mine = drawn_at(ax, views)
        assert len(everyone) == 300
        assert set(mine) == set(np.flatnonzero(views.owner == run))
        assert all(s.get_rasterized() for s in ax.collections)


def test_colors_without_values_are_refused(views):
    alone = views.dictionaries[1:]
    for color, said in (
        ("max-cosine", "there is only one run"),
        ("frequency", "no run has any"),
        ("size", "must be"),
    ):
        with pytest.raises(ValueError, match=said):
            plots.check_colors([color], alone)
    plots.check_colors(["owner", "region"], alone)


def test_a_figure_for_each_choice_is_saved(views, tmp_path):
    drawn = views.figures(colors=["matched", "owner", "frequency", "matched"])
    assert set(drawn) == {"umap", "regions", "runs", "unmatched", "umap-matched", "umap-frequency"}
    folder = sg.save(views, tmp_path / "out", formats=["png"], figures=drawn)
    assert {p.stem for p in (folder / "figures").iterdir()} == set(drawn)
    with pytest.raises(ValueError, match="color must be one of"):
        views.figures(colors=["color"])


def test_of_many_runs_a_legend_names_some_and_counts_the_rest():
    ax = Figure().subplots()
    _legend(ax, [("#0072B2", f"run-{k} (64)") for k in range(40)])
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(named) == 24
    assert named[-2:] == ["run-22 (64)", "and 17 more"]
    _legend(ax, [("#0072B2", f"run-{k} (64)") for k in range(24)])
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "run-23 (64)"
