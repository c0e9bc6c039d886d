"""Edges between one layer and the next, and what they make of each latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sae_geometry.matching.defaults import OneToOne


@dataclass(frozen=True, eq=False)
class Step:
    """Edges between one layer (n latents) and the next (m latents), as rows; −1 for no edge.

    Attributes:
        one_to_one: int64 [n], the next layer's latent that continues each latent.
        forward: int64 [n], each latent's nearest in the next layer.
        backward: int64 [m], each next latent's nearest in this layer.
        one_to_one_cosine, forward_cosine, backward_cosine: their cosines, edge or not.
        one_to_one_q, forward_q, backward_q: their q-values.
        map: name, SHA-256 and number of latents sent to zero of the linear map of the earlier layer; None without one.
    """

    one_to_one: np.ndarray
    one_to_one_cosine: np.ndarray
    one_to_one_q: np.ndarray
    forward: np.ndarray
    forward_cosine: np.ndarray
    forward_q: np.ndarray
    backward: np.ndarray
    backward_cosine: np.ndarray
    backward_q: np.ndarray
    method: OneToOne
    map: Mapping[str, Any] | None = None

    @cached_property
    def origin(self) -> np.ndarray:
        """Return the row in this layer that continues into each next latent, int64 [m]; −1 for none."""
        out = np.full(len(self.backward), -1)
        rows = np.flatnonzero(self.one_to_one >= 0)
        out[self.one_to_one[rows]] = rows
        return out

    @property
    def fate(self) -> np.ndarray:
        """Return "continues", "merges" or "dies" per latent of this layer."""
        onward = (self.forward >= 0) | np.isin(np.arange(len(self.forward)), self.backward)
        return np.where(self.one_to_one >= 0, "continues", np.where(onward, "merges", "dies"))

    @property
    def onward(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where each latent of this layer goes, int64 [n], −1 for none, and the cosine, of an edge or not.

        That is its continuation, else its nearest, else a next latent that is nearest to it.
        """
        to, cosine = self.forward.copy(), self.forward_cosine.copy()
        # Where several have one parent, the most similar is written last.
        children = np.argsort(self.backward_cosine, kind="stable")
        children = children[self.backward[children] >= 0]
        children = children[to[self.backward[children]] < 0]
        to[self.backward[children]], cosine[self.backward[children]] = children, self.backward_cosine[children]
        goes_on = self.one_to_one >= 0
        return np.where(goes_on, self.one_to_one, to), np.where(goes_on, self.one_to_one_cosine, cosine)

    @property
    def arrival(self) -> np.ndarray:
        """Return "continues", "splits off" or "born" per latent of the next layer."""
        inward = (self.backward >= 0) | np.isin(np.arange(len(self.backward)), self.forward)
        return np.where(self.origin >= 0, "continues", np.where(inward, "splits off", "born"))

    @property
    def n_continuing(self) -> int:
        """Return the number of one-to-one edges."""
        return int((self.one_to_one >= 0).sum())

    @property
    def n_deaths(self) -> int:
        """Return the number of latents with no edge to the next layer."""
        return int((self.fate == "dies").sum())

    @property
    def n_births(self) -> int:
        """Return the number of next latents with no edge from this layer."""
        return int((self.arrival == "born").sum())

    @property
    def n_splits(self) -> int:
        """Return the number of next latents that come from a latent which continues as another, or ends in several."""
        return int((self.arrival == "splits off").sum())

    @property
    def n_merges(self) -> int:
        """Return the number of latents that go into a next latent which continues another."""
        return int((self.fate == "merges").sum())
