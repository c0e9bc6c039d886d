"""Tests of Neuronpedia's exports from a loopback bucket, and of the run that a table of labels belongs to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bucket_server import Bucket, BucketHandler
from wandb_server import cut_short, status

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.labels.attach import with_labels
from sae_geometry.labels.neuronpedia import ExportError
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.cache import clear_cache
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.neuronpedia import BUCKET_VARIABLE, fetch_export

SOURCE = "gpt2-small/8-res-jb"


def batch(records: list[dict[str, Any]], source: str = SOURCE) -> bytes:
    model, layer = source.split("/")
    lines = [json.dumps({"modelId": model, "layer": layer, **r}) for r in records]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


@pytest.fixture
def bucket(cache, monkeypatch) -> Iterator[Bucket]:
    world = Bucket()
    monkeypatch.setenv(BUCKET_VARIABLE, world.url)
    v1 = f"v1/{SOURCE}"
    world.files = {
        f"{v1}/features/batch-0.jsonl.gz": batch([{"index": "2", "frac_nonzero": 0.5, "pos_str": [" dog"]}]),
        f"{v1}/features/batch-1.jsonl.gz": batch(
            [{"index": "0", "frac_nonzero": 0}, {"index": "1", "frac_nonzero": 0.25, "neg_str": ["x"]}]
        ),
        f"{v1}/explanations/batch-0.jsonl.gz": batch(
            [{"index": str(i), "description": f"e{i}", "explanationModelName": "gpt-4o"} for i in range(3)]
        ),
        f"{v1}/explanations-other/batch-0.jsonl.gz": batch(
            [{"index": "1", "description": "another", "explanationModelName": "gpt-3.5"}]
        ),
        f"{v1}/activations/batch-0.jsonl.gz": b"never asked for",
    }
    yield world
    world.close()


def dictionary(name: str = "d", n: int = 3, **more: Any) -> Dictionary:
    return Dictionary.from_decoder(torch.eye(n, 6), latent_axis=0, name=name, **more)


def test_an_export_is_fetched_once_and_there_offline(bucket):
    said: list[str] = []
    (d,) = with_labels([dictionary()], Context(echo=said.append), given=[f"neuronpedia:{SOURCE}"])
    assert d.labels.frame.explanation.tolist() == ["e0", "e1", "e2"]
    assert d.frequency.tolist() == [0.0, 0.25, 0.5]
    assert d.keep_alive().latent_ids.tolist() == [1, 2]
    assert d.labels.frame.tokens[2] == [" dog"]
    assert any("explanations by gpt-4o; left out" in line and ": 1 by gpt-3.5" in line for line in said)
    assert not any("activations" in path for _, path, _ in bucket.requests)
    bucket.requests.clear()
    (again,) = with_labels([dictionary()], Context(offline=True), given=[f"neuronpedia:{SOURCE}"])
    assert again.labels.frame.equals(d.labels.frame)
    assert sg.read_labels(f"neuronpedia:{SOURCE}").frame.equals(d.labels.frame)
    assert not bucket.requests


def test_a_damaged_copy_is_fetched_again_and_refused_offline(bucket):
    folder = fetch_export(SOURCE) / SOURCE / "features" / "batch-0.jsonl.gz"
    folder.write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"is damaged in the cache .*leave out --offline"):
        fetch_export(SOURCE, Context(offline=True))
    fetch_export(SOURCE)
    assert folder.read_bytes() == bucket.files[f"v1/{SOURCE}/features/batch-0.jsonl.gz"]

    clear_cache()
    assert not folder.exists()


def test_what_is_wrong_on_the_server_is_one_sentence(bucket):
    first = f"v1/{SOURCE}/features/batch-0.jsonl.gz"
    with pytest.raises(SourceError, match="no export of gpt2-small/9-res-jb"):
        fetch_export("gpt2-small/9-res-jb")
    with pytest.raises(SourceError, match="is not a Neuronpedia MODEL/SOURCE"):
        fetch_export("../../etc")
    bucket.faults[first] = status(404)
    with pytest.raises(SourceError, match=r"batch-0\.jsonl\.gz: not found \(404\)"):
        fetch_export(SOURCE)
    bucket.faults[first] = cut_short()
    with pytest.raises(SourceError, match="was lost"):
        fetch_export(SOURCE)
    with pytest.raises(SourceError, match="not in the cache"):
        fetch_export(SOURCE, Context(offline=True))


@pytest.mark.parametrize(
    ("key", "content", "says"),
    [
        ("features/batch-0", batch([{"index": "2", "frac_nonzero": 0.5}])[:-9], "truncated or damaged"),
        ("features/batch-0", batch([{"index": "2"}], "gpt2-small/7-res-jb"), "belongs to gpt2-small/7-res-jb, not"),
        ("features/batch-3", batch([{"index": "5", "frac_nonzero": 0.5}]), r"lacks batch-2\.jsonl\.gz"),
        ("features/batch-0", batch([{"index": "0", "frac_nonzero": 0.5}]), "occurs twice"),
    ],
    ids=["truncated", "of another", "with a gap", "with a latent twice"],
)
def test_an_export_that_is_wrong_in_itself_is_refused(bucket, key, content, says):
    bucket.files[f"v1/{SOURCE}/{key}.jsonl.gz"] = content
    with pytest.raises(ExportError, match=says):
        with_labels([dictionary()], Context(), given=[f"neuronpedia:{SOURCE}"])


def test_a_listing_that_is_not_one_is_refused(bucket, monkeypatch):
    for body in (b"<html></html>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>", b"nothing"):
        monkeypatch.setattr(BucketHandler, "listing", lambda self, *_, body=body: self.reply(body))
        with pytest.raises(SourceError, match="not a bucket listing"):
            fetch_export(SOURCE)


def test_whose_labels_a_table_holds_is_asked_not_guessed(bucket, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("latent,name\n0,x\n")
    a, b = dictionary("a"), dictionary("b")
    with pytest.raises(ValueError, match=r"does not name a run: give --labels NAME=.*NAME is one of a, b"):
        with_labels([a, b], Context(), given=[str(table)])
    with pytest.raises(ValueError, match="the Neuronpedia pages of 'a' are unknown"):
        with_labels([a, b], Context(), given=["neuronpedia"])
    left, right = with_labels([a, b], Context(), given=[f"b={table}"])
    assert left.labels is None
    assert right.labels.frame.name.tolist() == ["x"]
    named = dictionary("c", metadata={"neuronpedia_id": SOURCE})
    left, right = with_labels([a, named], Context(), given=["neuronpedia"])
    assert left.labels is None
    assert right.labels.frame.explanation[0] == "e0"
    with pytest.raises(ValueError, match="the labels belong to another dictionary"):
        with_labels([dictionary(n=2)], Context(), given=[f"neuronpedia:{SOURCE}"])


def test_a_downloaded_folder_says_itself_of_what_it_is(bucket, tmp_path):
    root = fetch_export(SOURCE)
    (d,) = with_labels([dictionary()], Context(), given=[str(root / SOURCE)])
    assert "Neuronpedia, gpt2-small/8-res-jb, by gpt-4o" in d.labels.sources["explanation"]
    assert sg.read_labels(root).frame.equals(d.labels.frame)
    with pytest.raises(ValueError, match="holds no Neuronpedia export"):
        with_labels([dictionary()], Context(), given=[str(tmp_path)])
    (root / "m" / "s" / "features").mkdir(parents=True)
    with pytest.raises(ValueError, match="several exports: give one of"):
        sg.read_labels(root)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("blocks.8.hook_resid_pre", None),
        ("transformer.h.7", None),  # Its output is the residual stream before layer 8.
        ("blocks.8.hook_resid_post", None),
        ("blocks.6.hook_resid_pre", "different layer"),
        ("blocks.8.hook_mlp_out", "different site"),
        ("somewhere", None),
        (None, None),
    ],
)
def test_labels_of_another_layer_or_site_are_refused(bucket, hook, said):
    d, given = dictionary(hook_point=hook), [f"neuronpedia:{SOURCE}"]
    if said is None:
        assert with_labels([d], Context(), given=given)[0].labels is not None
        return
    with pytest.raises(ValueError, match=rf"{SOURCE} is for a {said} from 'd', which is at {hook}"):
        with_labels([d], Context(), given=given)
    [allowed] = with_labels([d], Context(), given=given, allow_mismatch=True)
    assert said in allowed.notes[-1]
    folder = fetch_export(SOURCE) / SOURCE
    with pytest.raises(ValueError, match=said):
        with_labels([d], Context(), given=[str(folder)])
