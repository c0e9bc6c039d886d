"""Tests that the numbers in the figures are those in the results, and that no color covers another."""

from __future__ import annotations

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import oracles
import pytest
from drawn import agreement, embedding, labels_of, matching
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

import sae_geometry as sg
from sae_geometry import plots
from sae_geometry.dictionary import Dictionary
from sae_geometry.plots.style import MUTED, NEAREST, ONE_TO_ONE, RUNS


@pytest.fixture(scope="module")
def comparison():
    """Compare two dictionaries of 60 and 47 latents that share thirty directions."""
    a, b = oracles.related_decoders(np.random.default_rng(0), n=60, m=47, d=12, shared=30)
    kinds = {"latent_axis": 0, "hook_point": "h", "model": "m"}
    return sg.compare(*(Dictionary.from_decoder(w, name=name, **kinds) for w, name in ((a, "a"), (b, "b"))))


def test_every_function_draws_on_the_axes_given_and_returns_them(comparison):
    for draw in (comparison.plot_ecdf, comparison.plot_histogram, comparison.plot_multiplicity):
        _, ax = plt.subplots()
        assert draw(ax=ax) is ax
        assert draw() is not ax


def test_ecdf_lines_are_the_ecdf(comparison):
    ax = comparison.plot_ecdf()
    lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
    assert len(lines) == 4
    for label, line in lines.items():
        source = comparison.one_to_one() if "one-to-one" in label else comparison
        m = source.a_to_b if "A → B" in label else source.b_to_a
        x, y = line.get_data()
        for at in (100, 1000, 1900):
            assert y[at] == pytest.approx(1 - m.fraction_above(float(x[at])))
        assert f"mean {m.mean_similarity:.2f}" in label
        assert (line.get_linestyle() == "-") == ("A → B" in label)


def test_histogram_bins_are_shared_and_sum_to_the_matched_share(comparison):
    ax = comparison.plot_histogram()
    assert ax.get_ylabel() == "share of latents"
    paired = comparison.one_to_one()
    curves = [comparison.a_to_b, comparison.b_to_a, paired.a_to_b, paired.b_to_a]
    drawn = plots.similarity._drawn([*curves, sg.compare(comparison.a, comparison.a).a_to_b])
    bins = np.linspace(*plots.similarity._range(drawn), 51)
    assert ax.get_xlim()[1] == bins[-1] == 1.0
    for curve in drawn:
        assert np.histogram(curve.values, bins)[0].sum() == curve.matching.n_matched


def test_a_dictionary_against_itself_is_drawn_whole(rng):
    d = Dictionary.from_decoder(rng.standard_normal((200, 32)), latent_axis=0, name="d")
    c = sg.compare(d, d)
    assert float(c.a_to_b.similarity.max()) == 1.0  # With float32 rows a cosine may exceed 1 by 1e-8, and is clipped.
    for line in c.plot_ecdf().get_lines():
        if len(line.get_xdata()) > 10:
            assert line.get_ydata()[-1] == 1.0


def test_dollar_signs_underscores_and_unknown_scripts_are_drawn(tmp_path, rng):
    names = ("$x_$", "_a", "漢字")
    dicts = [Dictionary.from_decoder(rng.standard_normal((30, 8)), latent_axis=0, name=n) for n in names]
    nearest = [sg.within(d).nearest for d in dicts]
    figure = plots.similarity_figure(nearest)
    plots.save_figure(figure, tmp_path / "f", {"runs": names})
    assert sum("nearest other latent" in label for label in labels_of(figure.axes[1])) == 3
    for ax in (None, Figure().subplots()):
        picture = plots.embedding_scatter(embedding(names, 30, 3), ax)
        shown = labels_of(picture)
        assert [label.strip().replace(r"\$", "$") for label in shown] == [f"{name} (30)" for name in names]
        plots.save_figure(picture.figure, tmp_path / "umap", {"runs": names}, ("png",))


def test_one_axis_carries_one_quantity():
    mixed = [matching("a", "b", 60, 50), replace(matching("a", "b", 60, 50), signed=False)]
    with pytest.raises(ValueError, match="the same quantity"):
        plots.similarity_ecdf(mixed)


def test_chance_is_drawn_at_its_value(comparison):
    ax = comparison.plot_ecdf()
    verticals = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    at = {(line.get_xdata()[0], line.get_color()) for line in verticals}
    paired = comparison.one_to_one()
    nearest, one_to_one = ({round(m.chance, 3) for m in (c.a_to_b, c.b_to_a)} for c in (comparison, paired))
    isotropic = {round(m.isotropic_chance, 3) for m in (comparison.a_to_b, comparison.b_to_a)}
    assert nearest.isdisjoint(one_to_one)
    assert at == {
        (v, c) for values, c in ((nearest, NEAREST), (one_to_one, ONE_TO_ONE), (isotropic, MUTED)) for v in values
    }
    labels = labels_of(ax)
    assert f"chance {paired.a_to_b.chance:.2f}" in next(text for text in labels if "one-to-one" in text)
    assert any("vertical, dashed: expected by chance" in text for text in labels)
    assert any("isotropic" in text for text in labels)


def test_chances_that_fall_together_are_all_seen(rng):
    dicts = [Dictionary.from_decoder(rng.standard_normal((60, 16)), latent_axis=0, name=n) for n in "abc"]
    ax = plots.similarity_ecdf([sg.within(d).nearest for d in dicts])
    chances = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_color() in RUNS]
    assert [line.get_color() for line in sorted(chances, key=lambda line: RUNS.index(line.get_color()))] == list(
        RUNS[:3]
    )
    dashes = [line._unscaled_dash_pattern for line in chances]
    assert len({offset for offset, _ in dashes}) == 3
    for offset, (on, off) in dashes:
        assert on * 3 == on + off
        assert offset % on == 0


def test_an_unknown_chance_is_not_named(rng):
    a, b = (Dictionary.from_decoder(rng.standard_normal((30, 3)), latent_axis=0, name=n) for n in "ab")
    unknown = sg.compare(a, b, "mutual", turns=0).a_to_b
    assert np.isnan(unknown.chance)
    labels = labels_of(plots.similarity_ecdf([unknown]))
    assert not any("chance nan" in text or "expected by chance" in text for text in labels)


def test_each_way_of_counting_stands_beside_its_own_chance(comparison):
    ax = comparison.plot_double_counting()
    counts = comparison.double_counting().counts
    marks = sorted((line.get_ydata().mean(), line.get_xdata()[0]) for line in ax.get_lines())
    assert [x for _, x in marks[::-1]] == [c.chance for c in counts]
    assert len({round(c.chance, 3) for c in counts}) > 2
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in ax.patches]
    for text, c, (y, width) in zip(ax.texts, counts, bars, strict=True):
        assert text.get_text() == (f"{c.name}: {c.mean_similarity:.3f} (chance {c.chance:.3f}), {c.n_pairs:,} pairs")
        assert width == c.mean_similarity
        assert 0 < text.get_position()[1] - y < 0.5, "each line should be above its own bar"


def test_the_words_of_the_groups_lie_on_nothing():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = plots.agreement_figure(agreement("a", "b", 2000))
    FigureCanvasAgg(figure).draw()
    main = figure.axes[2]
    (cells,) = (c for c in main.collections if len(c.get_offsets()) > 1)
    (points,) = (main.transData.transform(cells.get_offsets()),)
    words = [t.get_window_extent() for t in main.texts]
    assert len(words) == 4
    for box in words:
        assert not box.padded(4).count_contains(points)
        for line in (c for c in main.collections if c is not cells):
            (ends,) = (main.transData.transform(path.vertices) for path in line.get_paths())
            assert not box.count_overlaps([Bbox([ends.min(0), ends.max(0) + 1e-6])])
    assert not any(a.overlaps(b) for i, a in enumerate(words) for b in words[:i])


def test_multiplicity_bars_are_the_multiplicities(comparison):
    ax = comparison.plot_multiplicity()
    forth = ax.containers[0]
    counts = comparison.a_to_b.multiplicity
    assert [b.get_width() for b in forth][:3] == [(counts == k).sum() for k in range(3)]
    assert sum(b.get_width() for b in forth) == len(counts)
    assert sum(b.get_width() for b in ax.containers[1]) == len(comparison.b_to_a.multiplicity)


def test_equal_sizes_show_the_one_to_one_curve_once():
    pair = [matching("a", "b", 90, 90, method) for method in ("nearest", "greedy")]
    back = [matching("b", "a", 90, 90, method) for method in ("nearest", "greedy")]
    labels = labels_of(plots.similarity_ecdf([pair[0], back[0], pair[1], back[1]]))
    assert sum("one-to-one" in label for label in labels) == 1
    assert any("both directions" in label for label in labels)


def test_within_figure_names_its_dictionary(comparison):
    w = sg.within(comparison.a)
    ax = w.plot_ecdf()
    assert ax.get_title(loc="left") == "a"
    assert "nearest other latent" in ax.get_xlabel()
    assert w.plot_histogram().get_title(loc="left") == "a"


def test_saved_files_carry_their_runs_and_editable_text(comparison, tmp_path):
    figure = plots.similarity_figure([comparison.a_to_b, comparison.b_to_a])
    paths = plots.save_figure(figure, tmp_path / "f", {"runs": ["a", "b"], "seed": 0}, ("png", "pdf", "svg"))
    assert [p.suffix for p in paths] == [".png", ".pdf", ".svg"]
    for path in paths:
        data = path.read_bytes()
        assert b"seed" in data, path
    pdf = paths[1].read_bytes()
    assert b"/Type /Font" in pdf
    assert b"/Subtype /Type0" in pdf or b"/Subtype /TrueType" in pdf  # The font is TrueType, not outlines.
    assert b"<text" in paths[2].read_bytes()


def test_an_unknown_format_and_nothing_to_draw_are_refused(comparison, tmp_path):
    figure = plots.similarity_figure([comparison.a_to_b])
    with pytest.raises(ValueError, match="png, pdf or svg"):
        plots.save_figure(figure, tmp_path / "f", {}, ("gif",))
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.similarity_ecdf([])


def test_drawing_leaves_matplotlibs_settings_alone(comparison):
    before = dict(plt.rcParams)
    comparison.plot_ecdf()
    assert dict(plt.rcParams) == before


def test_unmatched_latents_lift_the_curve_from_the_start():
    rng = np.random.default_rng(0)
    a, b = oracles.related_decoders(rng, 40, 10, 16, shared=10)
    pair = [Dictionary.from_decoder(w, latent_axis=0, name=n) for w, n in ((a, "a"), (b, "b"))]
    c = sg.compare(*pair, matching="greedy")
    ax = plots.similarity_ecdf([c.a_to_b])
    assert ax.get_lines()[0].get_ydata()[0] == pytest.approx(30 / 40)
    assert json.dumps(c.a_to_b.n_matched) == "10"
