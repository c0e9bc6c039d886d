from __future__ import annotations

import pandas as pd
import pytest

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
        ("a.csv", "id,x\n1,2\n", "needs a column `latent`"),
        ("a.csv", "latent,x\n1,2\n1,3\n", "more than once, first 1"),
        ("a.csv", "latent,x\n1.5,2\n", "row 1: '1.5' is no latent id"),
        ("a.csv", "latent,x\n-1,2\n", "from 0 on"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.parquet", "nonsense", "cannot be read as parquet"),
        ("a.txt", "latent\n1\n", "ends in none of"),
    ],
)
def test_what_is_no_table_of_labels_is_one_sentence(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_labels(tmp_path / name)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_labels(tmp_path / "x.csv")
