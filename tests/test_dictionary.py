"""Tests of Dictionary: unit rows, identities, selection, and refusal of rows without a direction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sae_geometry.dictionary import Dictionary


def make(weight, **kwargs):
    return Dictionary.from_decoder(weight, latent_axis=kwargs.pop("latent_axis", 0), **kwargs)


def test_rows_are_unit_and_norms_are_kept(rng):
    w = rng.standard_normal((7, 5)) * 10.0 ** rng.integers(-3, 3, (7, 1))
    d = make(w, name="x")
    assert d.directions.dtype == torch.float32
    np.testing.assert_allclose(d.directions.numpy(), w / np.linalg.norm(w, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(d.decoder_norms.numpy(), np.linalg.norm(w, axis=1), rtol=1e-6)
    assert d.latent_ids.tolist() == list(range(7))
    assert (d.n_latents, d.d_in) == (7, 5)


def test_orientation_is_what_was_stated_even_when_square(rng):
    w = rng.standard_normal((4, 4))
    assert torch.equal(make(w, latent_axis=1).directions, make(w.T.copy()).directions)
    assert not torch.equal(make(w, latent_axis=1).directions, make(w).directions)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type_is_read(dtype, rng):
    w = torch.tensor(rng.standard_normal((5, 3))).to(dtype)
    expected = w.double() / w.double().norm(dim=1, keepdim=True)
    assert torch.equal(make(w).directions, expected.float())


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-40, 1.0, 1e30, 1e300])
def test_tiny_and_huge_rows_keep_their_direction(scale):
    d = make(np.array([[3.0, 4.0]]) * scale)
    np.testing.assert_allclose(d.directions.numpy(), [[0.6, 0.8]], rtol=1e-7)


def test_normalizing_twice_changes_no_bit(rng):
    once = make(rng.standard_normal((200, 64))).directions
    assert torch.equal(make(once).directions, once)


def test_encoder_may_lie_the_other_way(rng):
    w, e = rng.standard_normal((6, 4)), rng.standard_normal((4, 6))
    d = make(w, encoder=e, encoder_latent_axis=1)
    assert torch.equal(d.encoder_directions, make(e.T.copy()).directions)
    with pytest.raises(ValueError, match="encoder_latent_axis=1"):
        make(w, encoder=e)


def test_a_silent_encoder_row_stays_zero(rng):
    e = rng.standard_normal((3, 4))
    e[1] = 0
    d = make(rng.standard_normal((3, 4)), encoder=e)
    assert torch.equal(d.encoder_directions[1], torch.zeros(4))
    assert "1 latent with a zero encoder row (1)" in d.notes


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (np.nan, "NaN"), (np.inf, "NaN or inf")])
def test_rows_without_direction_are_named(value, word, rng):
    w = rng.standard_normal((9, 3))
    w[[2, 5]] = value
    with pytest.raises(ValueError, match=word) as caught:
        make(w, name="broken")
    assert "latents 2, 5" in str(caught.value)
    assert "drop_bad=True" in str(caught.value)
    d = make(w, drop_bad=True)
    assert d.latent_ids.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert d.alive.bad_ids == (2, 5)
    assert any("2 latents dropped" in note for note in d.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_encoder_rows_that_are_not_finite_are_not_passed_over(value, rng):
    w, e = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    e[2] = value
    with pytest.raises(ValueError, match="encoder rows with NaN or inf: latents 2"):
        make(w, encoder=e)
    d = make(w, encoder=e, drop_bad=True)
    assert d.n_latents == 4
    assert torch.equal(d.encoder_directions[2], torch.zeros(3))
    assert "NaN or inf" in d.notes[0]


@pytest.mark.parametrize("alive", [np.array([1, 0, 1, 1]), [0.5, 0.2, 0.0, 0.9]])
def test_a_mask_of_numbers_is_not_taken_for_ids(alive, rng):
    with pytest.raises(ValueError, match="pass alive > 0"):
        make(rng.standard_normal((4, 3)), alive=alive)


def test_a_long_list_of_bad_rows_is_cut(rng):
    w = rng.standard_normal((30, 3))
    w[:20] = 0
    with pytest.raises(ValueError, match="and 12 more"):
        make(w)


def test_alive_from_frequency_and_keep_alive(rng):
    frequency = np.array([0.1, 0.0, 0.2, 0.0])
    d = make(rng.standard_normal((4, 3)), frequency=frequency, n_tokens=1000)
    assert d.alive.n_dead == 2
    kept = d.keep_alive()
    assert kept.latent_ids.tolist() == [0, 2]
    assert kept.frequency.tolist() == [0.1, 0.2]
    assert "2 of 4 alive" in kept.alive.describe()
    assert "1,000 tokens" in kept.alive.describe()
    assert "2 dead dropped" in kept.alive.describe()
    assert kept.keep_alive() is kept


def test_alive_ids_are_understood_and_checked(rng):
    d = make(rng.standard_normal((4, 3)), alive=[1, 3])
    assert d.keep_alive().latent_ids.tolist() == [1, 3]
    with pytest.raises(ValueError, match="another run"):
        make(rng.standard_normal((4, 3)), alive=[1, 4])


def test_unknown_alive_says_so_and_all_dead_is_an_error(rng):
    d = make(rng.standard_normal((4, 3)))
    assert "unknown" in d.alive.describe()
    assert d.keep_alive() is d
    with pytest.raises(ValueError, match="all 4 latents"):
        make(rng.standard_normal((4, 3)), alive=np.zeros(4, bool)).keep_alive()


def test_select_by_mask_and_by_id_keeps_original_ids(rng):
    d = make(rng.standard_normal((6, 3)), frequency=np.arange(6) / 10)
    half = d.select(torch.tensor([True, False, True, False, True, False]))
    assert half.latent_ids.tolist() == [0, 2, 4]
    assert half.select([4, 0]).latent_ids.tolist() == [4, 0]
    assert torch.equal(half.select([4]).directions[0], d.directions[4])
    for wrong, message in (
        (np.ones(5, bool), "one per latent; got 5"),
        ([1], "has no latent 1"),
        (np.zeros(3, bool), "contains none"),
        ([0.5], "must be integers"),
        ([[0]], "one-dimensional"),
    ):
        with pytest.raises(ValueError, match=message):
            half.select(wrong)


def test_fingerprint_is_of_the_weights_alone(rng):
    w = rng.standard_normal((5, 3))
    d = make(w, name="x", address="somewhere")
    assert d.fingerprint == make(w * 4, name="y").fingerprint
    assert len(d.fingerprint) == 64
    others = [make(w[::-1].copy()), d.select([0, 1]), make(w, encoder=w), make(np.roll(w, 1, axis=1))]
    assert len({d.fingerprint, *(o.fingerprint for o in others)}) == 5
    assert d.select([1, 0, 2, 3, 4]).fingerprint != d.fingerprint


def test_frozen(rng):
    d = make(rng.standard_normal((5, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.name = "other"
    with pytest.raises(TypeError):
        d.metadata["x"] = 1


def test_the_input_is_left_alone(rng):
    w = rng.standard_normal((5, 3))
    before = w.copy()
    make(w)
    np.testing.assert_array_equal(w, before)


def test_to_moves_directions(rng):
    d = make(rng.standard_normal((5, 3)), encoder=rng.standard_normal((5, 3)))
    moved = d.to("meta")
    assert moved.device.type == "meta"
    assert moved.encoder_directions.device.type == "meta"
    assert d.device.type == "cpu"


def test_repr_says_what_it_is(rng):
    text = repr(make(rng.standard_normal((5, 3)), name="mine", model="gpt2", hook_point="blocks.6.hook_resid_pre"))
    for part in ("'mine'", "5 latents × 3", "gpt2", "blocks.6.hook_resid_pre", "unknown", "encoder      none"):
        assert part in text


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("weight", "axis", "message"),
    [
        (np.zeros((2, 3, 4)), 0, "two axes"),
        (np.zeros(3), 0, "two axes"),
        (np.zeros((0, 3)), 0, "empty"),
        (np.ones((2, 3)), 2, "latent_axis must be 0"),
        (np.ones((2, 3), dtype=complex), 0, "real numbers"),
        (np.ones((2, 3), dtype=bool), 0, "real numbers"),
    ],
)
def test_shapes_and_types_are_checked(weight, axis, message):
    with pytest.raises(ValueError, match=message):
        Dictionary.from_decoder(weight, latent_axis=axis)


def test_per_latent_lengths_are_checked(rng):
    with pytest.raises(ValueError, match="frequency must have one entry"):
        make(rng.standard_normal((4, 3)), frequency=np.ones(3))
