from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.labels import Labels, TokenReading, Unembedding, read_labels, read_tokens
from sae_geometry.sources.errors import SourceError

V, D = 400, 24


@pytest.fixture
def unembedding() -> Unembedding:
    weight = torch.nn.functional.normalize(torch.randn(V, D, generator=torch.Generator().manual_seed(0)), dim=1)
    return Unembedding.from_weights(weight, [f"t{i}" for i in range(V)])


def dictionary(rows: torch.Tensor, **more: str) -> Dictionary:
    return Dictionary.from_decoder(rows, latent_axis=0, name="d", **more)


def _lists(column) -> list[list[str]]:
    return [list(values) for values in column]


def test_top_tokens_are_those_of_the_dense_product(unembedding):
    rows = torch.randn(30, D, generator=torch.Generator().manual_seed(1))
    rows[7] = unembedding.rows[3]
    d = dictionary(rows)
    reading = read_tokens(d, unembedding, k=5)
    dense = d.directions.double() @ unembedding.rows.double().T
    order = np.lexsort((np.broadcast_to(np.arange(V), dense.shape), -dense.numpy()), axis=1)
    table = reading.to_pandas()
    assert _lists(table.tokens) == [[f"t{i}" for i in row] for row in order[:, :5]]
    logits = np.stack(table.logits)
    np.testing.assert_allclose(logits, np.take_along_axis(dense.numpy(), order[:, :5], 1), atol=1e-6)
    least = np.lexsort((np.broadcast_to(np.arange(V), dense.shape), dense.numpy()), axis=1)
    assert _lists(table.negative_tokens) == [[f"t{i}" for i in row] for row in least[:, :5]]
    np.testing.assert_allclose(
        np.stack(table.negative_logits), np.take_along_axis(dense.numpy(), least[:, :5], 1), atol=1e-6
    )


def test_directions_made_of_tokens_are_read_back_and_turned_ones_are_not(unembedding):
    chosen = torch.arange(0, V, 2)
    noise = torch.randn(len(chosen), D, generator=torch.Generator().manual_seed(2))
    rows = torch.nn.functional.normalize(unembedding.rows[chosen], dim=1) + 0.05 * noise
    reading = read_tokens(dictionary(rows), unembedding, k=1)
    assert reading.to_pandas().tokens.str[0].tolist() == [f"t{i}" for i in chosen]
    assert reading.readable.mean() > 0.95
    random = read_tokens(dictionary(torch.randn(300, D, generator=torch.Generator().manual_seed(3))), unembedding)
    assert random.readable.mean() < 0.02
    assert random.beyond.low == 0.0


def test_what_cannot_be_read_is_one_sentence(unembedding, tmp_path):
    with pytest.raises(ValueError, match="width 12 but the unembedding of arrays has width 24"):
        read_tokens(dictionary(torch.eye(3, 12)), unembedding)
    with pytest.raises(ValueError, match="only directions of the residual stream"):
        read_tokens(dictionary(torch.eye(3, D), hook_point="blocks.3.attn.hook_z"), unembedding)
    with pytest.raises(SourceError, match="does not exist: give a model's folder"):
        read_tokens(dictionary(torch.eye(3, D)), tmp_path / "nowhere")
    assert read_tokens(dictionary(torch.eye(3, D), hook_point="model.layers.3"), unembedding).caveats == ()


def test_a_model_is_read_from_its_folder(tmp_path: Path, unembedding: Unembedding):
    model = tmp_path / "tiny"
    model.mkdir()
    save_file({"lm_head.weight": unembedding.rows, "model.norm.weight": torch.ones(D)}, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    vocab = {f"Ġw{i}": i for i in range(V)}
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "decoder": {"type": "ByteLevel"}}))
    reading = read_tokens(unembedding.rows[:40], model)
    assert "lm_head.weight times model.norm.weight, centered over the vocabulary; no bias" in " ".join(
        repr(reading).split()
    )
    tables, summary = sg.read(sg.save(reading, tmp_path / "out", formats=["png"]))
    assert [json.loads(text)[0] for text in tables["tokens"].tokens] == [f" w{i}" for i in range(40)]
    listed, row = pd.read_csv(tmp_path / "out" / "tokens.csv"), reading.to_pandas().iloc[7]
    assert sorted(listed.latent_id) == list(range(40))
    assert listed.token_cosine.is_monotonic_decreasing
    seventh = listed.set_index("latent_id").loc[7]
    assert seventh.negative_tokens == " ".join(f"‘{t}’" for t in row.negative_tokens)
    said = next(line for line in repr(reading).splitlines() if f"  {listed.latent_id[0]}  " in line)
    assert f"− {listed.negative_tokens[0].split('’')[0]}’" in said
    assert summary["n_with_tokens"] == 40
    assert (tmp_path / "out" / "figures" / "tokens.png").is_file()


def test_an_array_is_an_unembedding_with_numbers_for_tokens(unembedding):
    rows = torch.nn.functional.normalize(unembedding.rows, dim=1)[:9]
    reading = read_tokens(dictionary(rows), unembedding.rows.numpy(), k=1)
    assert reading.to_pandas().tokens.str[0].tolist() == [str(i) for i in range(9)]


def test_labels_join_by_latent(unembedding):
    reading = read_tokens(dictionary(torch.eye(5, D)).select([4, 1]), unembedding, k=2)
    assert isinstance(reading, TokenReading)
    labels = reading.labels
    assert labels.frame.index.tolist() == [1, 4]
    assert labels.for_ids([4, 2]).tokens.notna().tolist() == [True, False]
    assert "centered" in labels.sources["tokens"]


def test_a_dictionary_that_comes_with_tokens_needs_no_model(unembedding, demo, tmp_path):
    first = read_tokens(dictionary(unembedding.rows[:30]), unembedding, k=6)
    again = read_tokens(first.dictionary.labeled(first.labels), k=2)
    assert _lists(again.to_pandas().tokens) == [list(row[:2]) for row in first.to_pandas().tokens]
    assert again.readable.tolist() == first.readable.tolist()
    assert again.beyond == first.beyond
    shipped = read_tokens(demo["local-narrow-seed0"])
    assert shipped.summary()["n_with_tokens"] == 512
    assert "SmolLM2" in repr(shipped)
    assert "centered over the vocabulary" in " ".join(repr(shipped).split())
    words = Labels.of(pd.DataFrame({"tokens": [["x"], ["y"]]}, index=[0, 2]), "m")
    read = read_tokens(dictionary(unembedding.rows[:4]).labeled(words))
    assert "without tokens: 2 of 4 latents" in repr(read)
    tables, summary = sg.read(sg.save(read, tmp_path / "out", formats=["png"]))
    assert tables["tokens"].latent_id.tolist() == [0, 2]
    assert summary["readable_fraction"] is None
    again = dictionary(unembedding.rows[:4]).labeled(read_labels(tmp_path / "out" / "tokens.parquet"))
    assert read_tokens(again).to_pandas().tokens.tolist() == [["x"], ["y"]]
    (tmp_path / "mine.csv").write_text('latent,tokens\n0,"[""a"", ""b""]"\n1,[plain\n3,7\n')
    mine = dictionary(unembedding.rows[:4]).labeled(read_labels(tmp_path / "mine.csv"))
    assert read_tokens(mine, k=1).to_pandas().tokens.tolist() == [["a"], ["[plain"], ["7"]]
    with pytest.raises(ValueError, match="'d' has no tokens: give the model"):
        read_tokens(dictionary(torch.eye(3, D)))
