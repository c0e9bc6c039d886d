"""Dictionaries for the tests of many runs."""

from __future__ import annotations

import numpy as np

import sae_geometry as sg


def run(rows, name, **more):
    return sg.Dictionary.from_decoder(
        rows.astype(np.float32), latent_axis=0, name=name, model="m", hook_point="h", **more
    )
