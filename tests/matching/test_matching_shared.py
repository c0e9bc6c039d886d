"""Tests of matching by decoder and encoder, and of the latents that both recover."""

from __future__ import annotations

import math
import subprocess
import sys

import matching_cases
import numpy as np
import pytest
import torch

from sae_geometry.kernels.sweep import sweep
from sae_geometry.matching import Assignment, match, operands, shared_curve


@pytest.fixture
def sides(rng):
    """Return two dictionaries with decoders and encoders that share twenty latents."""
    dec_a, enc_a = rng.standard_normal((40, 9)), rng.standard_normal((40, 9))
    dec_b, enc_b = rng.standard_normal((33, 9)), rng.standard_normal((33, 9))
    dec_b[:20] = dec_a[:20] + 0.2 * rng.standard_normal((20, 9))
    enc_b[:20] = enc_a[:20] + 0.4 * rng.standard_normal((20, 9))
    unit = matching_cases.unit
    return (unit(dec_a), unit(enc_a)), (unit(dec_b), unit(enc_b))


def test_both_is_the_exact_mean_of_the_two_cosines_rounded_once(sides):
    a, b = sides
    x, y = operands(a, b, "both")
    found = sweep(x, y, 5)
    for i in range(40):
        for cosine, j in zip(found.rows.cosine[i].tolist(), found.rows.index[i].tolist(), strict=True):
            terms = [float(p) * float(q) / 2 for s in (0, 1) for p, q in zip(a[s][i], b[s][j], strict=True)]
            assert cosine == math.fsum(terms)


def test_each_of_the_three_is_what_it_says(sides):
    a, b = sides
    decoder, encoder = (matching_cases.dense_scores(a[s], b[s], False) for s in (0, 1))
    both = matching_cases.dense_scores(*operands(a, b, "both"), False)
    np.testing.assert_allclose(both, (decoder + encoder) / 2, atol=1e-15)
    np.testing.assert_array_equal(matching_cases.dense_scores(*operands(a, b, "decoder"), False), decoder)
    np.testing.assert_array_equal(matching_cases.dense_scores(*operands(a, b, "encoder"), False), encoder)
    partner = match(*operands(a, b, "both"), "greedy").partner
    np.testing.assert_array_equal(partner, matching_cases.sequential_greedy(both))


def test_a_missing_encoder_is_named(sides):
    a, b = sides
    assert operands((a[0], None), (b[0], None), "decoder")[0] is a[0]
    with pytest.raises(ValueError, match="b has none"):
        operands(a, (b[0], None), "both")
    with pytest.raises(ValueError, match="a has 40 decoder rows and 39 encoder rows"):
        operands((a[0], a[1][:-1]), b, "encoder")


def made(partner, cosine, absolute=False):
    """Return a matching from given partners and cosines."""
    partner, cosine = np.array(partner), np.array(cosine, dtype=np.float64)
    return Assignment(partner, cosine, "optimal", absolute, int((partner >= 0).sum()), float(np.nansum(cosine)))


def test_shared_by_hand():
    nan = np.nan
    decoder = made([0, 1, 2, -1, 3], [0.9, 0.8, 0.7, nan, 0.95])
    encoder = made([0, 2, 1, 3, -1], [0.8, 0.9, 0.9, 0.99, nan])
    # Latent 2 has a decoder score of 0.7, not above it; 3 and 4 lack a partner; 1 has two different partners.
    curve = shared_curve(decoder, encoder, n_columns=4, thresholds=(0.0, 0.7, 0.85))
    assert curve.decoder.tolist() == [4, 3, 2]
    assert curve.encoder.tolist() == [4, 4, 3]
    assert curve.both.tolist() == [3, 2, 0]
    assert curve.both_same_partner.tolist() == [1, 1, 0]
    assert (curve.same_partner, curve.n_pairs) == (1, 4)


def test_absolute_scores_count_by_their_size():
    decoder, encoder = made([0], [-0.9], absolute=True), made([0], [0.8], absolute=True)
    at = {"n_columns": 2, "thresholds": [0.7]}
    assert shared_curve(decoder, encoder, **at).both.tolist() == [1]
    assert shared_curve(made([0], [-0.9]), made([0], [0.8]), **at).both.tolist() == [0]
    with pytest.raises(ValueError, match="absolute cosines"):
        shared_curve(decoder, made([0], [0.8]), **at)
    with pytest.raises(ValueError, match="1 and 2 latents"):
        shared_curve(decoder, made([0, 1], [0.8, 0.8], absolute=True), **at)


def test_the_curve_equals_the_definition_at_every_threshold(sides):
    a, b = sides
    decoder, encoder = (match(a[s], b[s], "optimal") for s in (0, 1))
    curve = shared_curve(decoder, encoder, n_columns=33)
    assert curve.thresholds[14] == 0.7
    for at, t in enumerate(curve.thresholds.tolist()):
        assert curve.both[at] == sum(bool(x > t and y > t) for x, y in zip(decoder.cosine, encoder.cosine, strict=True))
    assert curve.both[0] >= 15
    assert (np.diff(curve.both) <= 0).all()


def test_importing_compiles_nothing():
    code = "import sys, sae_geometry.matching; sys.exit('numba' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tensors_that_require_gradients_or_are_strided_match_all_the_same(sides):
    a, b = sides
    plain = match(a[0], b[0], "optimal")
    again = match(a[0].T.contiguous().T, b[0].clone().requires_grad_(True), "optimal")
    np.testing.assert_array_equal(plain.partner, again.partner)
    assert torch.equal(a[0], sides[0][0])
