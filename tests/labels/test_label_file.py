from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.labels import Labels
from sae_geometry.labels import read_labels


def test_every_format_gives_the_same_table(tmp_path):
    frame = pd.DataFrame({"latent": [7, 2], "name": ["=because", "<b>"], "score": [0.5, 1.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        labels = read_labels(tmp_path / name)
        assert labels.frame.name.to_dict() == {2: "<b>", 7: "=because"}
        assert labels.sources == {"name": name, "score": name}
    assert read_labels(tmp_path / "a.csv").select([7]).frame.index.tolist() == [7]


def test_tables_join_and_the_later_column_wins(tmp_path):
    (tmp_path / "a.csv").write_text("latent,x,y\n1,a,b\n")
    (tmp_path / "b.csv").write_text("latent,y\n1,c\n2,d\n")
    both = read_labels(tmp_path / "a.csv").joined(read_labels(tmp_path / "b.csv"))
    assert both.frame.y.to_dict() == {1: "c", 2: "d"}
    assert both.frame.x.isna().tolist() == [False, True]
    assert both.sources == {"x": "a.csv", "y": "b.csv"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "id,x\n1,2\n", "has no column `latent`"),
        ("a.csv", "latent,x\n1,2\n1,3\n3,1\n3,1\n", r"a\.csv: latent 1 has more than one row \(2 surplus rows"),
        ("a.csv", "latent,x\n1.5,2\n", "row 1: '1.5' is not a latent id"),
        ("a.csv", "latent,x\n0,1\n-1,2\n", r"a\.csv: .* of 0 or more; got -1"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.parquet", "nonsense", "cannot be read as parquet"),
        ("a.txt", "latent\n1\n", "is not a label file"),
    ],
)
def test_what_is_not_a_table_of_labels_is_one_sentence(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_labels(tmp_path / name)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_labels(tmp_path / "x.csv")


def dictionary(n: int = 4, **more) -> Dictionary:
    return Dictionary.from_decoder(torch.eye(n, 6), latent_axis=0, name="d", **more)


def labels(**columns) -> Labels:
    return Labels.of(pd.DataFrame(columns, index=range(len(next(iter(columns.values()))))), "mine")


def test_labels_stay_with_their_latents_through_select():
    d = dictionary().labeled(labels(name=["a", "b", "c", "d"]))
    assert d.select([3, 1]).labels.for_ids([3, 1]).name.tolist() == ["d", "b"]
    assert d.fingerprint == dictionary().fingerprint
    assert d.labeled(labels(other=[1, 2])).labels.frame.columns.tolist() == ["name", "other"]


def test_labels_of_another_dictionary_are_refused():
    with pytest.raises(ValueError, match=r"up to 4, but 'd' has ids 0…3: the labels belong to another"):
        dictionary().labeled(labels(name=list("abcde")))
    with pytest.raises(ValueError, match="labels none of the 2 latents"):
        dictionary().select([2, 3]).labeled(labels(name=["a"]))


def test_a_density_is_frequency_and_life_where_none_is_known():
    found = dictionary().labeled(labels(density=[0.5, 0.0, 0.1, 1.0]))
    assert found.frequency.tolist() == [0.5, 0.0, 0.1, 1.0]
    assert found.keep_alive().latent_ids.tolist() == [0, 2, 3]
    assert "density by mine" in found.alive.describe()
    known = dictionary(frequency=[1.0, 1.0, 1.0, 1.0]).labeled(labels(density=[0.5, 0.0, 0.1, 1.0]))
    assert known.frequency.tolist() == [1.0] * 4
    part = dictionary().labeled(labels(density=[0.5, 0.1]))
    assert part.frequency is None
    assert part.notes == ("mine lacks the density of 2 latents, so all frequencies stay unknown",)
    with pytest.raises(ValueError, match="frequency must be the share"):
        dictionary().labeled(labels(density=[0.5, 0.0, 7.0, 1.0]))


def test_a_table_next_to_a_checkpoint_is_loaded_with_it(tmp_path):
    save_file(
        {"W_dec": torch.randn(4, 6), "W_enc": torch.randn(6, 4), "b_enc": torch.zeros(4)}, tmp_path / "ae.safetensors"
    )
    made = labels(tokens=[["a", " b"], ["c"], [], ["\n"]], name=["w", "x", None, "z"])
    made.save(tmp_path / "ae.labels.parquet")
    d = sg.load(tmp_path / "ae.safetensors")
    assert list(d.labels.frame.tokens[0]) == ["a", " b"]
    assert d.labels.sources == {"tokens": "mine", "name": "mine"}
    (tmp_path / "ae.labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as a table of labels"):
        sg.load(tmp_path / "ae.safetensors")


def test_demo_dictionaries_come_with_tokens():
    d = sg.load("demo:local-narrow-seed0")
    assert d.labels.frame.index.tolist() == d.latent_ids.tolist()
    assert all(len(tokens) == 10 for tokens in d.labels.frame.tokens)
    assert d.labels.frame.readable.mean() > 0.05
    assert "centered over the vocabulary" in d.labels.sources["tokens"]


def bomb(kind: str, path: Path) -> Path:
    """Return a file of at most a megabyte whose table would take gigabytes."""
    n = 500_000
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["x" * 5000])
    ids = pa.array(np.arange(1000))
    lists = pa.ListArray.from_arrays(np.arange(0, n + 1, n // 1000, dtype=np.int32), same)
    if kind == "one text for all rows":
        pq.write_table(pa.table({"latent": pa.array(np.zeros(n, np.int8)), "name": same}), path)
    elif kind == "one text in long lists":
        pq.write_table(pa.table({"latent": ids, "tokens": lists}), path)
    elif kind == "texts that fit once and not in copies":
        of = pa.array(np.arange(50_000, dtype=np.int32) % 100)
        texts = pa.DictionaryArray.from_arrays(of, [f"{i}" * 400 for i in range(10, 110)])
        pq.write_table(pa.table({"latent": pa.array(np.arange(50_000)), "name": texts}), path, compression="zstd")
    elif kind == "packed pages":
        zeros = pa.array(np.zeros(10_000_000))
        pq.write_table(pa.table({"latent": zeros}), path, compression="zstd", use_dictionary=False)
    elif kind == "pages that the footer belittles":
        texts = pa.array(["x" * 100_000] * 1000)
        pq.write_table(pa.table({"latent": ids, "x": texts}), path, compression="zstd", use_dictionary=False)
        raw, part = path.read_bytes(), pq.read_metadata(path).row_group(0)
        footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
        tail = raw[footer:]
        for size in {part.total_byte_size, part.column(1).total_uncompressed_size}:
            assert varint(2 * size) in tail
            tail = tail.replace(varint(2 * size), b"\x80" * (len(varint(2 * size)) - 1) + b"\x01")
        path.write_bytes(raw[:footer] + tail)
    elif kind == "columns":
        pq.write_table(pa.table({f"c{i}": [1] for i in range(2000)}), path)
    elif kind == "a header far wider than its rows":
        path.write_text(",".join(["latent", *(f"c{i}" for i in range(900))]) + "\n" + "1\n" * 200_000)
    else:
        path.write_text("".join(f'{{"latent":{i},"k{i % 999}":1}}\n' for i in range(40_000)))
    assert path.stat().st_size < 1_200_000
    return path


def varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("one text for all rows", "a.parquet"), ("one text in long lists", "a.parquet"), ("packed pages", "a.parquet"),
        ("texts that fit once and not in copies", "a.parquet"),
        ("pages that the footer belittles", "a.parquet"), ("columns", "a.parquet"),
        ("a header far wider than its rows", "a.csv"), ("a key for every row", "a.jsonl"),
    ],
)  # fmt: skip
def test_a_small_file_of_a_large_table_is_refused(tmp_path, kind, name):
    path = bomb(kind, tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as .*(allows? for|limit|too many|columns)") as caught:
        read_labels(path)
    assert len(str(caught.value)) < 300
    if name == "a.parquet":
        with pytest.raises(ValueError, match="cannot be read as a table of labels"):
            Labels.read(path)


def test_labels_as_large_as_any_are_read(tmp_path):
    n = 20_000
    tokens = [[f"t{i % 977}", f"u{i % 89}"] for i in range(n)]
    made = labels(tokens=tokens, name=[f"latent {i} of some length" for i in range(n)], same=["by a model"] * n)
    for codec in ("zstd", "snappy", "gzip", "none"):
        pq.write_table(pa.Table.from_pandas(made.frame.reset_index(), preserve_index=False), tmp_path / "x.parquet",
                       compression=codec)  # fmt: skip
        assert read_labels(tmp_path / "x.parquet").frame["name"].tolist() == made.frame["name"].tolist()


def test_ids_may_be_the_index_of_a_parquet_file(tmp_path):
    pd.DataFrame({"name": ["a", "b"]}, index=pd.Index([7, 2], name="latent")).to_parquet(tmp_path / "a.parquet")
    assert read_labels(tmp_path / "a.parquet").frame["name"].to_dict() == {2: "b", 7: "a"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "latent,x\n1,a,b\n2,c,d\n", "more fields than the header"),
        ("a.csv", "latent,x\n1_0,a\n", "row 1: '1_0' is not a latent id"),
        ("a.csv", "latent,x\ninf,a\n", "row 1: 'inf' is not a latent id"),
        ("a.csv", "", "cannot be read as csv"),
        ("a.jsonl", "[1, 2]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"latent": 0}\n3\n', "line 2 is not a JSON object"),
        ("a.jsonl", '{"latent": [0]}\n', r"row 1: '\[0\]' is not a latent id"),
        ("a.jsonl", '{"latent": true}\n', "row 1: 'True' is not a latent id"),
        ("a.jsonl", '{"latent": 1' + "0" * 400 + "}\n", "is not a latent id"),
        ("a.jsonl", '{"latent": null}\n', "is not a latent id"),
        ("a.jsonl", '{"x\\u202e": 1}\n', r"columns are x\\u202e"),
    ],
)
def test_rows_that_are_not_labels_are_one_sentence(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        read_labels(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_lone_surrogates_are_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"latent": 0, "name": "a\\ud800", "tokens": ["\\udfff", "b"], "x\\ud800": 1}\n')
    frame = read_labels(tmp_path / "a.jsonl").frame
    assert (frame.name[0], frame.tokens[0], list(frame.columns)) == (
        "a\ufffd", ["\ufffd", "b"], ["name", "tokens", "x\ufffd"],
    )  # fmt: skip
