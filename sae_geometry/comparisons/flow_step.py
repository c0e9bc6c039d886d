"""Edges between two consecutive layers, and the fate of each latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sae_geometry.matching.defaults import OneToOne


@dataclass(frozen=True, eq=False)
class Step:
    """Edges between a layer of n latents and the next layer of m latents, as row indices; −1 if there is no edge.

    Attributes:
        one_to_one: int64 [n], the latent of the next layer that continues each latent.
        forward: int64 [n], the nearest latent in the next layer.
        backward: int64 [m], for each latent of the next layer, the nearest latent in this layer.
        one_to_one_cosine, forward_cosine, backward_cosine: the cosines, whether or not there is an edge.
        one_to_one_q, forward_q, backward_q: the q-values of these cosines.
        map: name and SHA-256 of the earlier layer's linear map, and the number of latents sent to zero, or None.
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
        """Return the one-to-one partner in this layer of each latent of the next layer, int64 [m]; −1 for none."""
        out = np.full(len(self.backward), -1)
        rows = np.flatnonzero(self.one_to_one >= 0)
        out[self.one_to_one[rows]] = rows
        return out

    @property
    def fate(self) -> np.ndarray:
        """Return "continues", "merges" or "dies" for each latent of this layer."""
        onward = (self.forward >= 0) | np.isin(np.arange(len(self.forward)), self.backward)
        return np.where(self.one_to_one >= 0, "continues", np.where(onward, "merges", "dies"))

    @property
    def onward(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the latent of the next layer that each latent leads to, int64 [n] (or −1), and the cosine to it.

        That latent is the continuation, else the nearest, else the most similar latent whose nearest is this one.
        """
        to, cosine = self.forward.copy(), self.forward_cosine.copy()
        # Of several children of one parent, the most similar is written last, so it prevails.
        children = np.argsort(self.backward_cosine, kind="stable")
        children = children[self.backward[children] >= 0]
        children = children[to[self.backward[children]] < 0]
        to[self.backward[children]], cosine[self.backward[children]] = children, self.backward_cosine[children]
        goes_on = self.one_to_one >= 0
        return np.where(goes_on, self.one_to_one, to), np.where(goes_on, self.one_to_one_cosine, cosine)

    @property
    def arrival(self) -> np.ndarray:
        """Return "continues", "splits off" or "born" for each latent of the next layer."""
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
        """Return the number of latents of the next layer with no edge from this layer."""
        return int((self.arrival == "born").sum())

    @property
    def n_splits(self) -> int:
        """Return the number of latents of the next layer with an edge from this layer, but no continuing edge."""
        return int((self.arrival == "splits off").sum())

    @property
    def n_merges(self) -> int:
        """Return the number of latents of this layer with an edge to the next layer, but no continuing edge."""
        return int((self.fate == "merges").sum())
