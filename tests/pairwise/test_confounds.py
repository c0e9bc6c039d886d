"""Tests that the confound audit flags planted differences and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.pairwise.confounds import confound_audit


def run(rows, name="x", **more):
    given = {"model": "m", "hook_point": "h", "alive": np.ones(len(rows), dtype=bool)} | more
    return sg.Dictionary.from_decoder(rows.astype(np.float32), latent_axis=0, name=name, **given)


@pytest.fixture
def clean(rng):
    return run(rng.standard_normal((200, 32)), "a"), run(rng.standard_normal((200, 32)), "b")


def test_unrelated_dictionaries_raise_no_flag(clean):
    audit = confound_audit(*clean)
    assert audit.flagged == ()
    assert [f.verdict for f in audit.findings] == [
        "same", "same", "same", "same", "unknown", "same", "differs", "no sign", "unknown", "no sign",
    ]  # fmt: skip
    assert "start of training" in str(audit)


@pytest.mark.parametrize("seed", range(30))
def test_a_shared_start_is_not_seen_where_there_is_none(seed):
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal(24)  # A common mean must not look like a common start.
    a, b = (run(rng.standard_normal((120, 24)) + mean, n) for n in "ab")
    audit = confound_audit(a, b)
    assert audit.finding("start of training").verdict == "no sign"
    assert audit.finding("centering").verdict == "shared"
    assert "two random latents have a mean cosine" in audit.finding("centering").effect


def test_a_shared_start_is_seen(rng):
    start = rng.standard_normal((400, 48))
    a, b = (run(start + 3 * rng.standard_normal((400, 48)), n) for n in "ab")  # This gives a cosine of 0.1.
    found = confound_audit(a, b).finding("start of training")
    assert (found.verdict, found.flagged) == ("shared", True)
    assert "precedes training" in found.effect


def test_ids_not_rows_are_compared(rng):
    start = rng.standard_normal((300, 48))
    a = run(start + rng.standard_normal((300, 48)), "a")
    b = run(start + rng.standard_normal((300, 48)), "b")
    kept = np.sort(rng.permutation(300)[:150])
    assert confound_audit(a, b.select(kept)).finding("start of training").verdict == "shared"
    other = confound_audit(a.select(np.arange(100)), b.select(np.arange(100, 200)))
    assert other.finding("start of training").verdict == "unknown"


def test_the_demo_pair_that_shares_its_start(demo):
    audit = confound_audit(sg.load("demo:local-init-e2e-seed0"), demo["e2e-seed0"])
    assert audit.finding("start of training").verdict == "shared"
    for pair in (("local-seed0", "local-seed1"), ("e2e-seed0", "e2e-seed1"), ("local-seed0", "e2e-seed0")):
        audit = confound_audit(demo[pair[0]], demo[pair[1]])
        assert audit.finding("start of training").verdict == "no sign"


def test_each_planted_difference_is_flagged(clean, rng):
    a, _ = clean
    rows = rng.standard_normal((200, 32))
    for check, other, verdict in (
        ("model", run(rows, model="other"), "differs"),
        ("model", run(rows, model=None), "unknown"),
        ("hook point", run(rows, hook_point="g"), "differs"),
        ("width", run(rng.standard_normal((400, 32))), "differs"),
        ("dead latents", run(rows, alive=np.arange(200) > 9), "differs"),
        ("dead latents", run(rows, alive=None), "unknown"),
    ):
        audit = confound_audit(a, other)
        assert [f.check for f in audit.flagged] == [check]
        assert audit.finding(check).verdict == verdict
        assert f"! {check}{' unknown' if verdict == 'unknown' else ''}: " in str(audit)
    assert "chance-adjusted" in confound_audit(a, run(rng.standard_normal((400, 32)))).finding("width").effect


def test_the_same_weights_are_reported(clean):
    audit = confound_audit(clean[0], clean[0].renamed("again"))
    assert {"weights", "start of training"} <= {f.check for f in audit.flagged}


def test_scales_are_reported_but_not_flagged(clean, rng):
    found = confound_audit(clean[0], run(10 * rng.standard_normal((200, 32)))).finding("normalization")
    assert (found.verdict, found.flagged) == ("differs", False)


def test_the_audit_is_in_summary_and_repr(demo):
    c = sg.compare(sg.load("demo:local-init-e2e-seed0"), demo["e2e-seed0"])
    assert "! start of training" in repr(c)
    assert "! start of training" in c._repr_html_()
    [start] = [f for f in c.summary()["confounds"] if f["check"] == "start of training"]
    assert start["verdict"] == "shared"


def test_wrong_use_is_refused(clean, rng):
    with pytest.raises(ValueError, match="of the same width; got 32 and 5"):
        confound_audit(clean[0], run(rng.standard_normal((9, 5))))
    with pytest.raises(KeyError):
        confound_audit(*clean).finding("weather")
