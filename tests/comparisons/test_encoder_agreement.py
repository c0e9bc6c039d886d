"""Tests of encoder and decoder agreement: planted groups, frequency strata and refusals."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app


def run(rows, name, **more):
    return sg.Dictionary.from_decoder(
        rows.astype(np.float32), latent_axis=0, name=name, model="m", hook_point="h", **more
    )


@pytest.fixture
def planted(rng):
    """Plant 40 latents: 10 agree on both sides, 10 on the decoder only, 10 on the encoder only, and 10 on neither."""
    dec, enc = rng.standard_normal((40, 256)), rng.standard_normal((40, 256))
    near = 0.05 * rng.standard_normal((40, 256))
    other_dec, other_enc = rng.standard_normal((40, 256)), rng.standard_normal((40, 256))
    b_dec, b_enc = dec + near, enc + near
    b_dec[30:], b_enc[30:] = other_dec[30:], other_enc[30:]
    b_enc[10:20] = other_enc[10:20]
    # These agree on the encoder only: the decoder partner is the best of poor ones, but has the right encoder.
    b_dec[20:30] = 0.5 * dec[20:30] / np.linalg.norm(dec[20:30], axis=1, keepdims=True) * 16 + other_dec[20:30]
    order = rng.permutation(40)
    frequency = np.linspace(0.001, 0.5, 40)
    a = run(dec, "a", encoder=enc, frequency=frequency)
    return a, run(b_dec[order], "b", encoder=b_enc[order]), np.argsort(order)


def test_planted_groups_are_recovered(planted):
    a, b, where = planted
    r = sg.agreement(a, b)
    names = np.array(["both high", "both low", "encoder only", "decoder only"])[r.group]
    assert (names[:10] == "both high").all()
    assert (names[10:20] == "decoder only").all()
    assert (names[20:30] == "encoder only").all()
    assert (names[30:] == "both low").all()
    assert r.counts() == {"both high": 10, "both low": 10, "encoder only": 10, "decoder only": 10}
    assert r.same_partner[:10].all()
    assert r.same_partner[10:20].sum() <= 1
    np.testing.assert_array_equal(r.decoder.a_to_b.partner_row[:30], where[:30])


@pytest.fixture(scope="module")
def of_the_demo(demo):
    return sg.agreement(demo["local-seed0"], demo["local-seed1"])


def test_by_definition(of_the_demo):
    r = of_the_demo
    a, b = r.dictionaries
    dec = a.directions.double() @ b.directions.double().T
    enc = a.encoder_directions.double() @ b.encoder_directions.double().T
    partner = dec.argmax(dim=1)
    np.testing.assert_allclose(r.decoder_cosine, dec.max(dim=1).values, atol=1e-12)
    np.testing.assert_allclose(r.encoder_cosine, enc.gather(1, partner[:, None])[:, 0], atol=1e-12)
    np.testing.assert_array_equal(r.same_partner, (enc.argmax(dim=1) == partner).numpy())
    np.testing.assert_allclose(r.alignment, (a.directions * a.encoder_directions).double().sum(1), atol=1e-5)
    frame = r.to_pandas()
    assert frame["group"].value_counts().to_dict() == {k: v for k, v in r.counts().items() if v}
    assert (frame["encoder_own_cosine"] >= frame["encoder_cosine"] - 1e-9).all()
    np.testing.assert_array_equal(frame["significant"], r.decoder.nearest_a_to_b.significant)
    np.testing.assert_array_equal(frame["q_value"] <= 0.05, frame["significant"])
    np.testing.assert_array_equal(frame["encoder_q_value"], r.encoder.nearest_a_to_b.q_value)


def test_frequency_is_a_stratum(of_the_demo):
    r = of_the_demo
    strata = r.by_frequency()
    assert strata["n"].sum() == 1536
    assert (strata["lowest_frequency"].to_numpy()[1:] >= strata["highest_frequency"].to_numpy()[:-1]).all()
    assert strata["mean_decoder_cosine"].iloc[-1] > 0.55 > 0.4 > strata["mean_decoder_cosine"].iloc[1]
    first = np.argsort(r.a.frequency.numpy(), kind="stable")[: strata["n"].iloc[0]]
    assert strata["mean_decoder_cosine"].iloc[0] == pytest.approx(r.decoder_cosine[first].mean())
    assert (strata["low"] < strata["mean_decoder_cosine"]).all()


def test_unknown_values_are_not_shown(rng):
    a = run(rng.standard_normal((30, 16)), "a", encoder=rng.standard_normal((30, 9)))
    b = run(rng.standard_normal((30, 16)), "b", encoder=rng.standard_normal((30, 9)))
    r = sg.agreement(a, b)
    assert r.alignment is None  # The encoders read from another space.
    assert r.by_frequency() is None
    assert set(r.figures()) == {"agreement"}
    assert r.summary()["by_frequency"] is None
    with pytest.raises(ValueError, match="load a checkpoint that includes them"):
        sg.plots.frequency_hexbin(r)


def test_a_transcoder_has_no_alignment(rng):
    rows = rng.standard_normal((30, 16))
    t = run(rows, "t", encoder=rows, metadata={"hook_point_in": "mlp_in", "hook_point_out": "mlp_out"})
    assert sg.agreement(t, t).alignment is None
    assert sg.agreement(run(rows, "s", encoder=rows), t).alignment == pytest.approx(1.0)


def test_saved_and_drawn(planted, tmp_path):
    r = sg.agreement(planted[0], planted[1])
    folder = sg.save(r, tmp_path / "out", formats=["png"])
    assert sorted(p.name for p in (folder / "figures").iterdir()) == ["agreement.png", "frequency.png"]
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert len(table) == 40
    assert summary["groups"]["decoder only"] == 10
    assert sum(summary["groups_by_threshold"]["0.9"].values()) == 40
    plt.close(sg.plots.frequency_hexbin(r).figure)
    for part in ("both high: 10", "chance", "same latent", "firing frequency"):
        assert part in repr(r)


def test_wrong_use_is_refused(planted, toy_pair):
    with pytest.raises(ValueError, match="has no encoder"):
        sg.agreement(*toy_pair)
    with pytest.raises(ValueError, match="in −1…1; got 2"):
        sg.agreement(planted[0], planted[1], threshold=2.0)


@pytest.mark.usefixtures("blank_figures")
def test_the_command(tmp_path):
    out = tmp_path / "out"
    sides = ["demo:local-narrow-seed0", "demo:e2e-seed1"]
    result = CliRunner().invoke(app, ["agreement", *sides, "-o", str(out), "--json", "-q", "--format", "png"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n"] == 512
    assert (out / "agreement.parquet").exists()
