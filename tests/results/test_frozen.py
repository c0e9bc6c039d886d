"""Tests that results are immutable and can be pickled and copied."""

from __future__ import annotations

import copy
import pickle

import pandas as pd
import pytest
from every_result import results

import sae_geometry as sg


@pytest.mark.parametrize("name", results())
def test_a_pickled_result_gives_the_same_answer(name):
    result = results()[name][1]
    again = pickle.loads(pickle.dumps(result))
    assert repr(again) == repr(result)
    assert set(again.summary()) == set(result.summary())
    for name, table in result.tables().items():
        pd.testing.assert_frame_equal(again.tables()[name], table)


def test_a_copied_dictionary_is_the_same_and_read_only():
    d = sg.load("demo:local-narrow-seed0")
    for again in (copy.deepcopy(d), copy.copy(d), pickle.loads(pickle.dumps(d))):
        assert again.fingerprint == d.fingerprint
        assert again.metadata == d.metadata
        with pytest.raises(TypeError, match="does not support item assignment"):
            again.metadata["seed"] = 1


def test_parameters_and_records_do_not_change():
    picture, matched = results()["umap"][1], results()["match"][1]
    with pytest.raises(TypeError, match="does not support item assignment"):
        picture.params["seed"] = 1
    matched.record["pw_mcc"] = None
    assert matched.record["pw_mcc"] is not None
