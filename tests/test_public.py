"""Tests of the public names: documented, with narrow signatures, and taking addresses, arrays and mappings alike."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import sae_geometry as sg

NARROW = "demo:local-narrow-seed0"
# Calls with the other arguments filled in, by function; None for functions without a dictionary.
WITH_ONE = {
    "as_dictionary": lambda d: sg.as_dictionary(d),
    "truth": lambda d: sg.truth(d, d),
    "within": lambda d: sg.within(d),
    "neuronpedia_url": lambda d: (sg.neuronpedia_url(d, 0), 1),
    "estimate": lambda d: sg.estimate([d, d], probe_seconds=0.01),
    "compare": lambda d: sg.compare(d, d),
    "seeds": lambda d: sg.seeds([d, d], matching="mutual"),
    "agreement": lambda d: sg.agreement(d, d),
    "span": lambda d: sg.span(d, d),
    "split": lambda d: sg.split(d, d, n_terms=1),
    "umap": lambda d: sg.umap([d], seed=0, n_neighbors=5, n_epochs=2),
    "match": lambda d: sg.match(d, d),
    "compare_by_index": lambda d: sg.compare_by_index(d, d),
    "flow": lambda d: sg.flow([d, d]),
    "nearest": lambda d: sg.nearest(np.eye(sg.as_dictionary(d).d_in)[:1], d, turns=19),
    "read_tokens": lambda d: sg.read_tokens(
        d, np.random.default_rng(1).standard_normal((30, sg.as_dictionary(d).d_in)), k=1
    ),
    "project": lambda d: sg.project(d, sg.umap([d], seed=0, n_neighbors=5, n_epochs=2)),
    "mapped": lambda d: sg.mapped(d, np.eye(sg.as_dictionary(d).d_in, dtype=np.float32), name="eye"),
}
NO_DICTIONARY = {
    "drift", "demos", "exact_neighbors", "expected_max_cosine", "explore", "fetch",
    "load", "log_wandb", "progress_bars", "random_directions", "read", "read_labels", "read_shapes",
    "read_unembedding",
    "runs", "save", "settings", "similar_runs",
}  # fmt: skip


def test_every_public_function_is_in_one_of_the_lists() -> None:
    named = {name: getattr(sg, name) for name in sg.__all__}
    functions = {name for name, value in named.items() if callable(value) and not inspect.isclass(value)}
    assert functions == set(WITH_ONE) | NO_DICTIONARY


@pytest.mark.parametrize("name", sorted(WITH_ONE))
def test_an_address_an_array_and_a_mapping_are_taken(name: str) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    mapping = {"W_dec": rows, "W_enc": rows.T}
    given = [sg.as_dictionary(mapping), mapping]
    if name not in ("agreement",):  # An array has no encoder.
        given.append(rows)
    if name not in (
        "compare",
        "agreement",
        "seeds",
        "umap",
        "split",
        "span",
        "estimate",
        "flow",
        "match",
        "nearest",
        "truth",
        "read_tokens",
        "project",
    ):  # Loading an address is slower and would not test more.
        given.append(NARROW)
    for d in given:
        assert WITH_ONE[name](d) is not None


def test_dir_shows_the_public_list_and_nothing_else() -> None:
    assert dir(sg) == sorted(sg.__all__)


def test_one_dictionary_is_a_list_of_one() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    for one in (NARROW, rows, {"W_dec": rows}, sg.as_dictionary(rows)):
        assert sg.estimate(one, "within", probe_seconds=0.01).verb == "within"
        with pytest.raises(ValueError, match=r"needs 2 or more dictionaries; got 1"):
            sg.estimate(one)
        with pytest.raises(ValueError, match="at least two runs are needed to compare; got 1"):
            sg.seeds(one)
        with pytest.raises(ValueError, match="at least two layers; got 1"):
            sg.flow(one)


def public_callables():
    for name in sg.__all__:
        value = getattr(sg, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield pytest.param(value, id=name)


@pytest.mark.parametrize("thing", list(public_callables()))
def test_public_names_are_documented_and_signatures_are_narrow(thing):
    assert inspect.getdoc(thing), f"{thing.__name__} has no docstring"
    if inspect.isclass(thing):
        return
    parameters = inspect.signature(thing).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 3
    assert not any(isinstance(p.default, bool) for p in positional)
    assert "Example" in inspect.getdoc(thing) or thing.__name__ in {"demos", "read", "exact_neighbors"}


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        sg.compair  # noqa: B018


def test_dir_lists_the_public_names():
    assert {"compare", "umap", "load", "Dictionary"} <= set(dir(sg))
