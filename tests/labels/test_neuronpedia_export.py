from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sae_geometry.labels.neuronpedia import ExportError, read_export

SOURCE = "gpt2-small/8-res-jb"


def record(index: int, **more: Any) -> dict[str, Any]:
    return {"modelId": "gpt2-small", "layer": "8-res-jb", "index": str(index), **more}


def write(root: Path, kind: str, batch: int, records: list[dict[str, Any]]) -> Path:
    file = root / SOURCE / kind / f"batch-{batch}.jsonl.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("\n".join(json.dumps(r) for r in records).encode()))
    return file


@pytest.fixture
def export(tmp_path: Path) -> Path:
    write(
        tmp_path,
        "features",
        0,
        [record(5, frac_nonzero=0.5, pos_str=[" the"], neg_str=["x"]), record(1, frac_nonzero=0)],
    )
    write(tmp_path, "features", 1, [record(0, frac_nonzero=0.25)])
    write(
        tmp_path,
        "explanations",
        0,
        [
            record(1, description="= because", explanationModelName="gpt-4o-mini"),
            record(5, description="<b>dogs</b>", explanationModelName="gpt-4o-mini"),
            record(5, description="cats", explanationModelName="gpt-3.5-turbo"),
        ],
    )
    return tmp_path


def test_an_export_is_read_by_id_and_one_explainer(export):
    read = read_export(export, SOURCE)
    assert read.labels.frame.density.to_dict() == {0: 0.25, 1: 0.0, 5: 0.5}
    assert read.labels.frame.explanation.dropna().to_dict() == {1: "= because", 5: "<b>dogs</b>"}
    assert read.labels.frame.tokens[5] == [" the"]
    assert (read.explainer, read.others) == ("gpt-4o-mini", {"gpt-3.5-turbo": 1})
    assert "gpt-4o-mini" in read.labels.sources["explanation"]


def test_one_model_with_two_methods_is_two_explainers(export):
    more = [record(i, description="x", explanationModelName="gpt-4o-mini", typeName="from-logits") for i in (0, 1, 5)]
    write(export, "explanations", 1, more)
    read = read_export(export, SOURCE)
    assert read.explainer == "gpt-4o-mini (from-logits)"
    assert read.others == {"gpt-3.5-turbo": 1, "gpt-4o-mini": 2}


def test_incomplete_damaged_and_foreign_exports_are_refused(export):
    batch = export / SOURCE / "features" / "batch-1.jsonl.gz"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-9])
    with pytest.raises(ExportError, match="truncated or damaged"):
        read_export(export, SOURCE)
    batch.rename(batch.with_name("batch-2.jsonl.gz"))
    with pytest.raises(ExportError, match=r"lacks batch-1\.jsonl\.gz"):
        read_export(export, SOURCE)
    batch.write_bytes(whole)
    with pytest.raises(ExportError, match=r"no export of gpt2-small/9-res-jb"):
        read_export(export / "elsewhere", "gpt2-small/9-res-jb")
    with pytest.raises(ExportError, match="not gpt2-small/9-res-jb"):
        read_export(export / SOURCE, "gpt2-small/9-res-jb")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (record(5, frac_nonzero=0.1), "twice, with different density"),
        (record(5, pos_str=["a"]), "twice, with different tokens"),
        (record(7, frac_nonzero=1.5), "frac_nonzero must be in"),
        ({**record(0), "index": "-3"}, "not a latent id"),
        ({**record(0), "index": "9" * 30}, "not a latent id"),
    ],
)
def test_wrong_records_are_refused(export, wrong, says):
    write(export, "features", 2, [wrong])
    with pytest.raises(ExportError, match=says):
        read_export(export, SOURCE)


def test_batches_that_unpack_to_far_more_than_they_are(export, monkeypatch):
    monkeypatch.setattr("sae_geometry.labels.neuronpedia._ALWAYS", 1 << 16)
    write(export, "features", 2, [record(i + 10, pos_str=["x" * 3000]) for i in range(1000)])
    with pytest.raises(ExportError, match="decompresses to more data"):
        read_export(export, SOURCE)


def test_a_batch_with_a_huge_number_takes_no_memory(export):
    write(export, "features", 10**15, [record(9)])
    with pytest.raises(ExportError, match=r"lacks batch-2\.jsonl\.gz"):
        read_export(export, SOURCE)
