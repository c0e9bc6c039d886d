"""Tests of packing: the arrays, decoded slowly, must give the table back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from explorer_cases import arrays_of, table

from sae_geometry.explorer.packing import NO_COSINE, NO_PARTNER, pack


def unpacked(packed, names, letters) -> dict[tuple[str, int], dict]:
    """Return everything that is known about each latent, by run and id."""
    got = arrays_of(packed)
    known = {}
    for i in range(len(got["x"])):
        run = int(got["run"][i])
        facts = {
            "x": got["x"][i], "y": got["y"][i], "region": letters[got["region"][i] - 1] if got["region"][i] else None,
            "frequency": got["frequency"][i],
        }  # fmt: skip
        for slot in range(len(names) - 1):
            other = slot if slot < run else slot + 1
            for ours, theirs in (("nearest", "cosine"), ("single", "single_cosine")):
                at, steps = int(got[f"{ours}_{slot}"][i]), int(got[f"{theirs}_{slot}"][i])
                assert at == NO_PARTNER or got["run"][at] == other
                facts[f"{ours}:{names[other]}"] = None if at == NO_PARTNER else int(got["id"][at])
                facts[f"{theirs}:{names[other]}"] = None if steps == NO_COSINE else steps / 32767
            facts[f"mutual:{names[other]}"] = bool(got[f"mutual_{slot}"][i])
        known[names[run], int(got["id"][i])] = facts
    return known


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["z", "m", "a", "q"]])
def test_nothing_is_lost(names):
    frame = table(names, 41)
    known = unpacked(pack(frame, names, ["A", "B"]), names, ["A", "B"])
    assert len(known) == len(frame)
    for _, row in frame.iterrows():
        facts = known[row["run"], row["latent_id"]]
        assert facts["x"] == row["x"]
        assert facts["y"] == row["y"]
        assert facts["region"] == (None if pd.isna(row["region"]) else row["region"])
        if pd.isna(row["frequency"]):
            assert np.isnan(facts["frequency"])
        else:
            assert facts["frequency"] == pytest.approx(row["frequency"], rel=1e-6)
        for other in names:
            if other == row["run"]:
                assert f"nearest:{other}" not in facts
                continue
            for ours, theirs in (("nearest", "partner_id"), ("single", "one_to_one_partner_id")):
                wanted = row[f"{theirs}:{other}"]
                assert facts[f"{ours}:{other}"] == (None if pd.isna(wanted) else wanted)
            for ours, theirs in (("cosine", "max_cosine"), ("single_cosine", "one_to_one_cosine")):
                wanted = row[f"{theirs}:{other}"]
                if pd.isna(wanted):
                    assert facts[f"{ours}:{other}"] is None
                else:
                    assert facts[f"{ours}:{other}"] == pytest.approx(wanted, abs=0.5 / 32767)
            assert facts[f"mutual:{other}"] == row[f"mutual:{other}"]


def test_points_are_shuffled_and_twice_the_same():
    frame = table(["a", "b"], 500)
    packed = pack(frame, ["a", "b"], ["A", "B"])
    run = arrays_of(packed)["run"]
    assert packed.buffer == pack(frame, ["a", "b"], ["A", "B"]).buffer
    # The first half of a fair shuffle of 500 + 500 has 250 ± 4 × 7.9 of each.
    assert abs(int(run[:500].sum()) - 250) < 32


def test_arrays_start_where_their_type_can():
    packed = pack(table(["a", "b", "c"], 33), ["a", "b", "c"], ["A", "B"])
    for _, offset, _ in packed.where.values():
        assert offset % 8 == 0


def test_a_partner_outside_the_table_is_dropped():
    frame = table(["a", "b"], 20)
    frame.loc[frame.index[0], "partner_id:b"] = 4  # ids are 3, 10, …
    known = unpacked(pack(frame, ["a", "b"], ["A", "B"]), ["a", "b"], ["A", "B"])
    assert known["a", 3]["nearest:b"] is None


def test_unknown_frequencies_take_no_room():
    frame = table(["a"], 20).assign(frequency=pd.array([None] * 20, dtype="Float64"))
    assert "frequency" not in pack(frame, ["a"], []).where
    assert "frequency" not in pack(frame.drop(columns=["frequency", "region"]), ["a"], []).where


def test_what_cannot_be_packed():
    frame = table(["a", "b"], 20)
    twice = pd.concat([frame, frame.head(1)], ignore_index=True)
    with pytest.raises(ValueError, match="more than one row for a latent of a"):
        pack(twice, ["a", "b"], ["A", "B"])
    with pytest.raises(ValueError, match="not finite"):
        pack(frame.assign(x=np.nan), ["a", "b"], ["A", "B"])
