"""Dictionaries for the tests of pairs."""

from __future__ import annotations

import numpy as np

from sae_geometry.dictionary import Dictionary


def make(w, name="x", **kwargs):
    return Dictionary.from_decoder(np.asarray(w), latent_axis=0, name=name, hook_point="h", model="m", **kwargs)
