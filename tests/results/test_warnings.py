"""Tests of the warnings on the first screen: the most serious first, each once, in lines of 80 characters."""

from __future__ import annotations

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.results.warnings import warning_lines, wrapped

QUESTION = "did you transpose?"


@pytest.mark.parametrize(
    ("shape", "asked"),
    [((32, 300), True), ((768, 500), True), ((300, 32), False), ((4096, 768), False), ((1024, 512), False)],
)
def test_rows_that_look_like_dimensions_are_asked_about_first(shape, asked, rng):
    a, b = rng.standard_normal((2, *shape)).astype(np.float32)
    d = sg.as_dictionary(a)
    assert any(note.startswith(QUESTION) for note in d.notes) is asked
    if shape[0] < 1000:
        assert (QUESTION in repr(sg.within(a))) is asked
    if shape == (32, 300):
        said = [line for line in sg.compare(a, b, turns=0).answer().splitlines() if "!" in line]
        assert said[0].startswith(f"  ! {QUESTION}")
        assert sum(QUESTION in line for line in said) == 1


def test_an_orientation_that_was_given_is_not_asked_about(rng):
    x = rng.standard_normal((32, 300))
    assert not any(QUESTION in note for note in sg.Dictionary.from_decoder(x, latent_axis=0).notes)


def test_grave_confounds_come_first_and_unknown_ones_on_one_line():
    caveats = ["a: a note", "and 114 more", "model of a and b unknown: taken to be the same"]
    flagged = ["model unknown: x", "centering: both lean", "dead latents unknown: y", "weights: the same"]
    assert warning_lines(caveats, flagged, most=4, clean=6) == [
        "  ! weights: the same",
        "  ! a: a note",
        "  ! centering: both lean",
        "  ! unknown, so not checked: model, dead latents",
        "  six other checks: nothing flagged (--verbose, .details())",
    ]


def test_many_warnings_are_cut_and_counted():
    lines = warning_lines(["word " * 60 + str(i) for i in range(9)])
    assert max(map(len, lines)) <= 80
    assert len(lines) == 4
    assert lines[-1] == "  6 more warnings (--verbose, .details())"
    assert len(warning_lines(["word " * 60 + str(i) for i in range(9)], most=2)) == 3
    assert warning_lines([]) == []


def test_every_warning_is_in_the_details(rng):
    a, b = rng.standard_normal((2, 40, 8))
    for result in (sg.within(a), sg.span(a, b, threshold=0.9), sg.compare(a, b, turns=0)):
        assert all(c in " ".join(result.details().split()) for c in result.caveats)


def test_long_lines_are_wrapped_below_their_start():
    assert wrapped(["  " + "ab " * 40, "", "short"]) == [
        "  " + "ab " * 25 + "ab",
        "    " + "ab " * 13 + "ab",
        "",
        "short",
    ]
