"""Tests that the methods paragraph of a report describes what was done, for every kind of result."""

from __future__ import annotations

import html
import re

import pytest
from every_result import results

from sae_geometry.results.report import report_page

# what each paragraph must say, and what it must not say
SAID = {
    "compare": (
        ["one and two", "the cosine of unit decoder directions", "several may share one", "proven optimality",
         "above 0.7", "two turned by an orthogonal map", "(3 turns", "its own dictionary",
         "false discovery rate of 0.05"],
        ["encoder", "absolute", "control", "mapped", "left out"],
    ),
    "mapped": (["mapped by 'm' (sha256"], ["encoder"]),
    "encoder": (["the absolute cosine of unit encoder directions", "greedily", "above 0.6"], ["decoder", "optimality"]),
    "both": (
        ["the mean of the cosines of unit decoder and unit encoder directions", "mutual nearest neighbors",
         "less than 0.01"],
        ["absolute", "greedily"],
    ),
    "control": (["No pair below 0.2 was matched", "in the same way with noise", "(2 turns"], ["encoder"]),
    "index": (["have the same id", "at most 0.1, and only in again if it is at least 0.9", "again turned"],
              ["one-to-one", "knockoff"]),
    "match": (["proven optimality", "with absolute cosines and with encoder cosines"], ["greedily"]),
    "truth": (["above 0.8", "MCC is the mean absolute cosine"], ["encoder"]),
    "within": (
        ["the absolute cosine of unit decoder directions", "excluded by index", "the nearest latent of the turned one"],
        ["its own dictionary", "one-to-one", "other dictionary"],
    ),
    "seeds": (
        ["every pair of 2 runs", "mean of the cosines of unit decoder and unit encoder", "greedily", "above 0.65"],
        ["absolute", "optimality"],
    ),
    "agreement": (["the cosine between the two encoder directions", "above 0.7 count as high"], ["absolute"]),
    "span": (["without a one-to-one partner in two above 0.7", "span of the k latents of two"], ["encoder"]),
    "split": (["the nearest latent of the turned two", "isotropic", "up to 4 directions of one"], ["encoder"]),
    "drift": (["through 3 checkpoints", "0.95", "1e-05", "compared with chance"], ["turned"]),
    "nearest": (["searched 47 latents of two", "9 orthogonal turns", "mapped by 'm'"], ["one-to-one", "knockoff"]),
    "flow": (["2 consecutive layers", "cosine of at least 0.5", "its own layer"], ["encoder"]),
    "folded": (["2 consecutive layers", "by the latents' thresholds", "in order: 'turn' (sha256"], ["encoder"]),
    "reads": (["next layer's unit encoder directions", "cosine of at least 0 "], ["its own layer"]),
    "tokens": (["the unembedding, centered", "one turned by an orthogonal map"], ["one-to-one", "encoder"]),
    "umap": (["decoder directions of 2 runs", "15 exact nearest neighbors", "seed 0", "HDBSCAN", "permuted labels"],
             ["knockoff", "one-to-one"]),
    "alone": (["decoder directions of 1 run ", "15 exact nearest neighbors"], ["permuted", "another run"]),
    "project": (["directions of three into a fixed UMAP of one, two", "UMAP's optimizer"], ["knockoff"]),
}  # fmt: skip


def test_every_kind_of_result_is_here():
    assert set(SAID) == set(results())


@pytest.mark.parametrize("name", SAID)
def test_the_paragraph_says_what_was_done(name):
    result = results()[name][1]
    page = report_page(result, {})
    text = html.unescape(re.search(r"For a methods section</h2><p>(.*?)</p>", page)[1])
    wanted, unwanted = SAID[name]
    for part in wanted:
        assert part in text, (part, text)
    for part in unwanted:
        assert part not in result.method, (part, text)
    for d in result.dictionaries:
        assert d.name in text
        assert d.fingerprint[:12] in text
    assert text.endswith("sparse autoencoder dictionaries.")
