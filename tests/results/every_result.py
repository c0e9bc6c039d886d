"""One small result of every kind, with labels, encoders and firing frequencies, computed once per process."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import torch

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.labels import Labels
from sae_geometry.labels import Unembedding, read_tokens

WIDTH = 12


def dictionaries() -> tuple[Dictionary, Dictionary, Unembedding]:
    """Return two labeled dictionaries of 60 and 47 latents that share thirty, and a vocabulary of 80 tokens."""
    rng = np.random.default_rng(0)
    rows = oracles.related_decoders(rng, n=60, m=47, d=WIDTH, shared=30)
    words = Unembedding.from_weights(torch.from_numpy(rng.standard_normal((80, WIDTH))), [f" w{i}" for i in range(80)])
    made = []
    for name, decoder in zip(("one", "two"), rows, strict=True):
        encoder = decoder + 0.3 * rng.standard_normal(decoder.shape)
        d = Dictionary.from_decoder(
            decoder, latent_axis=0, encoder=encoder, name=name, hook_point="blocks.1.hook_resid_pre", model="toy",
            frequency=rng.uniform(1e-4, 0.1, len(decoder)), alive=np.ones(len(decoder), dtype=bool),
            metadata={"kind": "local", "seed": 3},
        )  # fmt: skip
        own = pd.DataFrame({"explanation": "about a word", "density": 0.01, "mine": 1.5}, index=range(d.n_latents))
        made.append(d.labeled(read_tokens(d, words, k=3).labels).labeled(Labels.of(own, "the test")))
    return made[0], made[1], words


def checkpoints() -> Path:
    """Write a run with three checkpoints."""
    folder = Path(tempfile.mkdtemp(prefix="drift-"))
    rows = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    for step in range(1, 4):
        weights = {"h.decoder.weight": (rows + 1 / step).T.contiguous(), "h.encoder.0.weight": rows}
        torch.save(weights, folder / f"samples_{10**step}.pt")
    return folder


def folding(d: Dictionary) -> Dictionary:
    """Return the dictionary with thresholds, like a JumpReLU SAE."""
    return replace(d, threshold=torch.full((d.n_latents,), 2.0))


@cache
def results() -> dict[str, tuple[str, Any]]:
    """Return (command, result) by a name for each result."""
    a, b, words = dictionaries()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))[0]
    mapped = [sg.mapped(d, turn, name="m") for d in (a, b)]
    picture = sg.umap([a, b], n_epochs=10, n_seeds=1)
    return {
        "compare": ("compare", sg.compare(a, b)),
        "mapped": ("compare", sg.compare(*mapped)),
        "encoder": ("compare", sg.compare(a, b, "greedy", on="encoder", signed=False, threshold=0.6)),
        "both": ("compare", sg.compare(a, b, "mutual", on="both", min_margin=0.01)),
        "control": ("compare", sg.compare(a, b, "optimal", control=b.renamed("noise"), min_similarity=0.2, turns=2)),
        "index": ("compare --pairing index", sg.compare_by_index(a, a.renamed("again"))),
        "match": ("match", sg.match(a, b)),
        "truth": ("truth", sg.truth(a, b, threshold=0.8)),
        "within": ("within", sg.within(a, signed=False)),
        "seeds": ("seeds", sg.seeds([a, b], on="both", matching="greedy", threshold=0.65)),
        "agreement": ("agreement", sg.agreement(a, b)),
        "span": ("span", sg.span(a, b)),
        "split": ("split", sg.split(b, a)),
        "drift": ("drift", sg.drift(checkpoints(), threshold=0.95)),
        "nearest": ("nearest", sg.nearest(mapped[0], [mapped[1]], 2, turns=9)),
        "flow": ("flow", sg.flow([a, b])),
        "folded": ("flow", sg.flow([folding(a), folding(b)], fold=True, maps=[("turn", np.eye(a.d_in))])),
        "reads": ("flow", sg.flow([a, b], on="reads")),
        "tokens": ("tokens", read_tokens(a, words, k=3)),
        "umap": ("umap", picture),
        "alone": ("umap", sg.umap(a, n_epochs=10, n_seeds=1)),
        "project": ("project", sg.project(b.renamed("three"), picture)),
    }
