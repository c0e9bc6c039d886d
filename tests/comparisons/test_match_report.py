"""Tests of the match report: its numbers against dense definitions, and its schema, which rejects spoiled records."""

from __future__ import annotations

import copy
import doctest
import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import sae_geometry as sg
from sae_geometry.comparisons.match_report import schema
from sae_geometry.dictionary import Dictionary
from sae_geometry.nulls import expected_max_cosine

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def demo(demo):
    """Return demo dictionaries without their first latents, so that ids are not positions."""
    return {name: d.select(range(45, d.n_latents)) for name, d in demo.items()}


@pytest.fixture(scope="module")
def report(demo):
    return sg.match(demo["local-seed0"], demo["local-seed1"], provenance={"command": "sae-geometry match"}).record


def dense(x, y):
    return x.double().numpy() @ y.double().numpy().T


def test_pw_mcc_signed_and_absolute_equal_the_dense_assignment(report, demo):
    cosine = dense(demo["local-seed0"].directions, demo["local-seed1"].directions)
    for name, score in (("signed", cosine), ("absolute", np.abs(cosine))):
        rows, cols = linear_sum_assignment(score, maximize=True)
        record = report["pw_mcc"][name]
        assert record["value"] == pytest.approx(score[rows, cols].mean(), abs=1e-12)
        assert record["value"] <= record["upper_bound"] <= record["value"] + 1e-12
        assert record["n_pairs"] == min(cosine.shape)
        assert ("|⟨a_i, b_j⟩|" in record["formula"]) == (name == "absolute")
    assert report["mmcs"]["a_to_b"] == pytest.approx(cosine.max(axis=1).mean(), abs=1e-12)
    assert report["mmcs"]["b_to_a"] == pytest.approx(cosine.max(axis=0).mean(), abs=1e-12)
    assert report["chance"]["a_to_b"] == expected_max_cosine(cosine.shape[1], 576)


def test_chance_and_confounds_stand_beside_the_numbers(report, demo):
    c = sg.compare(demo["local-seed0"], demo["local-seed1"], "optimal")
    chance = report["chance"]
    assert chance["one_to_one"]["signed"] == asdict(c.a_to_b.expected)
    assert chance["one_to_one"]["absolute"]["mean_similarity"] > c.a_to_b.chance
    assert chance["turned"]["a_to_b"] == asdict(c.nearest_a_to_b.expected) | {"share_above": None}
    assert chance["own"]["b_to_a"] == c.nearest_b_to_a.own
    assert report["significant"]["a_to_b"] == c.nearest_a_to_b.significance_summary()
    q = np.array(report["matchings"]["decoder_signed"]["pairs"]["q_value"])
    assert 0.3 < (q <= 0.05).mean() < 0.5
    assert report["confounds"] == c.confounds.summary()


def test_the_full_matching_is_there_by_original_ids(report, demo):
    a, b = demo["local-seed0"], demo["local-seed1"]
    cosine = dense(a.directions, b.directions)
    row_of = {int(latent): row for row, latent in enumerate(a.latent_ids)}
    col_of = {int(latent): col for col, latent in enumerate(b.latent_ids)}
    assert list(row_of) != list(range(len(row_of)))  # Latents were dropped, so ids are not positions.
    for record in (report["matchings"]["decoder_signed"], report["matchings"]["decoder_absolute"]):
        pairs = record["pairs"]
        rows = [row_of[i] for i in pairs["a_latent_id"]]
        cols = [col_of[j] for j in pairs["b_latent_id"]]
        assert len(set(rows)) == len(set(cols)) == len(rows) == record["n_matched"]
        np.testing.assert_allclose(pairs["cosine"], cosine[rows, cols], atol=1e-12)
        assert set(pairs["a_latent_id"]) | set(record["unmatched_a"]) == set(row_of)
        assert set(pairs["b_latent_id"]) | set(record["unmatched_b"]) == set(col_of)
        assert len(record["unmatched_a"]) + record["n_matched"] == a.n_latents
        assert record["certificate"]["certified"]


def test_shared_latents_equal_paulo_and_belroses_definition(report, demo):
    a, b = demo["local-seed0"], demo["local-seed1"]
    made = []
    for x, y in ((a.directions, b.directions), (a.encoder_directions, b.encoder_directions)):
        score = dense(x, y)
        rows, cols = linear_sum_assignment(score, maximize=True)
        made.append((dict(zip(rows.tolist(), cols.tolist(), strict=True)), score))
    (decoder, dec), (encoder, enc) = made
    point = next(p for p in report["shared"]["curve"] if p["threshold"] == 0.7)
    both = [i for i in decoder if i in encoder and dec[i, decoder[i]] > 0.7 and enc[i, encoder[i]] > 0.7]
    assert point["both"] == len(both)
    assert point["both_share"] == len(both) / min(dec.shape)
    assert point["both_same_partner"] == sum(decoder[i] == encoder[i] for i in both)
    assert report["shared"]["same_partner"] == sum(decoder[i] == encoder.get(i) for i in decoder)
    assert 0 < len(both) < min(dec.shape)


def test_the_record_is_json_and_fits_its_schema(report):
    text = json.dumps(report, allow_nan=False)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(text), schema())
    assert report["schema_version"] == "2.0"
    assert schema()["$id"].endswith(report["schema_version"])
    assert report["provenance"] == {"command": "sae-geometry match"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("pw_mcc"),
        lambda r: r.update(schema_version="1.0"),
        lambda r: r.update(surprise=1),
        lambda r: r["pw_mcc"]["signed"].pop("formula"),
        lambda r: r["pw_mcc"]["signed"].update(value=1.2),
        lambda r: r["matchings"]["decoder_signed"]["pairs"].update(cosine=["0.5"]),
        lambda r: r["matchings"]["decoder_signed"].update(similarity="dot"),
        lambda r: r["matchings"]["decoder_signed"]["certificate"].pop("gap"),
        lambda r: r["shared"]["curve"][0].update(both=-1),
        lambda r: r["parameters"].update(thresholds=[0.5]),
        lambda r: r["inputs"]["a"].update(fingerprint="unknown"),
    ],
)
def test_the_schema_refuses_a_spoiled_record(report, spoil):
    record = copy.deepcopy(report)
    spoil(record)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema())


def test_without_encoders_the_report_says_so(rng):
    a = Dictionary.from_decoder(rng.standard_normal((30, 8)), latent_axis=0, name="bare")
    b = Dictionary.from_decoder(rng.standard_normal((21, 8)), latent_axis=0, name="other")
    record = sg.match(a, b, thresholds=[0.5]).record
    jsonschema.validate(json.loads(json.dumps(record)), schema())
    assert record["shared"] == {"missing": "no encoder in bare and other"}
    assert record["matchings"]["encoder_signed"] is None
    assert len(record["matchings"]["decoder_signed"]["unmatched_a"]) == 9
    assert record["parameters"]["thresholds"] == [0.5, 0.7]
    assert record["caveats"]


def test_what_cannot_be_matched_is_refused(rng):
    a = Dictionary.from_decoder(rng.standard_normal((5, 8)), latent_axis=0, name="a", hook_point="x")
    b = Dictionary.from_decoder(rng.standard_normal((5, 8)), latent_axis=0, name="b", hook_point="y")
    with pytest.raises(ValueError, match="different hook point"):
        sg.match(a, b)
    caveats = sg.match(a, b, allow_mismatch=True).record["caveats"]
    assert sum("allowed by the caller" in caveat for caveat in caveats) == 1
    with pytest.raises(ValueError, match=r"got \[1.5\]"):
        sg.match(a, a, thresholds=[0.5, 1.5])


def test_a_dictionary_matched_with_itself_and_turned(rng):
    raw = rng.standard_normal((40, 12))
    a = Dictionary.from_decoder(raw, latent_axis=0, name="a")
    assert sg.match(a, a).record["pw_mcc"]["signed"]["value"] == pytest.approx(1.0, abs=1e-7)
    turned = Dictionary.from_decoder(-raw[::-1].copy(), latent_axis=0, name="turned")
    record = sg.match(a, turned).record
    assert record["pw_mcc"]["absolute"]["value"] == pytest.approx(1.0, abs=1e-7)
    assert record["pw_mcc"]["signed"]["value"] < 0.9
    assert record["matchings"]["decoder_absolute"]["pairs"]["b_latent_id"] == list(range(39, -1, -1))
    assert max(record["matchings"]["decoder_absolute"]["pairs"]["cosine"]) == pytest.approx(-1.0, abs=1e-6)


def test_progress_names_the_stage_and_shows_the_gap(rng):
    a = Dictionary.from_decoder(rng.standard_normal((40, 12)), latent_axis=0, name="a")
    seen = []
    sg.match(a, a, progress=lambda what, share: seen.append(what))
    assert any(what.startswith("solve · gap ") for what in seen)
    assert any(what.startswith("|decoders|: ") for what in seen)


def test_a_rotation_changes_no_number(rng):
    raw_a, raw_b = rng.standard_normal((25, 10)), rng.standard_normal((25, 10))
    rotation = torch.linalg.qr(torch.from_numpy(rng.standard_normal((10, 10))))[0].numpy()
    plain = sg.match(*(Dictionary.from_decoder(x, latent_axis=0, name="x") for x in (raw_a, raw_b))).record
    turned = sg.match(*(Dictionary.from_decoder(x @ rotation, latent_axis=0, name="x") for x in (raw_a, raw_b))).record
    for name in ("signed", "absolute"):
        assert plain["pw_mcc"][name]["value"] == pytest.approx(turned["pw_mcc"][name]["value"], abs=1e-6)
    assert (
        plain["matchings"]["decoder_signed"]["pairs"]["b_latent_id"]
        == (turned["matchings"]["decoder_signed"]["pairs"]["b_latent_id"])
    )


def test_docstring_example_runs():
    result = doctest.testmod(sys.modules["sae_geometry.comparisons.match_report"])
    assert result.attempted > 0
    assert result.failed == 0
