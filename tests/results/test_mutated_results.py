"""Tests of damaged and malicious results folders: an answer or one sentence, and never much memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from explorer_cases import results

import sae_geometry as sg
from sae_geometry.explorer.contents import read_contents
from sae_geometry.explorer.packing import pack
from sae_geometry.io.parquet import read_table

WEIRD: list[Any] = [
    None, True, -1, 0, 1e308, 10**30, float("nan"), "", "x" * 300, "\ud800", "\0", [], {}, [[]], [None], {"a": None},
    [1, 2, 3], "__proto__", {"name": 7}, [{"name": None}], [{"letter": "A"}], -0.0, 2**63, "1e999",
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, inner in items for found in places(inner, (*path, key)))]


def changed(value: Any, path: tuple, dice: random.Random) -> Any:
    """Return the value with one part replaced, removed or duplicated."""
    if not path:
        return dice.choice(WEIRD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and dice.random() < 0.25:
        copy.pop(path[0])
    elif len(path) == 1 and isinstance(copy, list) and dice.random() < 0.2:
        copy.append(copy[path[0]])
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], dice)
    return copy


def mutate_json(path: Path, dice: random.Random) -> None:
    value = json.loads(path.read_text())
    for _ in range(dice.randint(1, 3)):
        value = changed(value, dice.choice(places(value)), dice)
        if not isinstance(value, dict | list):
            break
    path.write_text(json.dumps(value))


def mutate_bytes(path: Path, dice: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(raw))
        what = dice.random()
        if what < 0.6:
            raw[at] ^= 1 << dice.randrange(8)
        elif what < 0.8:
            del raw[at : at + dice.randint(1, 200)]
        else:
            raw[at:at] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 20)))
        if not raw:
            break
    path.write_bytes(bytes(raw))


def mutate_table(path: Path, dice: random.Random) -> None:
    table = pd.read_parquet(path)
    column = dice.choice(list(table.columns))
    n = len(table)
    columns: list[Callable[[], Any]] = [
        lambda: pd.Series([dice.choice(WEIRD[:8])] * n, dtype=object).map(str),
        lambda: np.full(n, np.nan),
        lambda: np.full(n, np.inf),
        lambda: np.arange(n) - 3,
        lambda: np.arange(n, dtype=np.uint64) + np.uint64(2**63),
        lambda: np.full(n, 1e300),
        lambda: pd.date_range("2026-01-01", periods=n),
        lambda: [b"\xff"] * n,
        lambda: [[1.0, 2.0]] * n,
        lambda: pd.Series([None] * n, dtype=object),
        lambda: pd.Categorical(["a"] * n),
        lambda: np.zeros(n, dtype=bool),
        lambda: table[column].sample(frac=1, random_state=1).to_numpy(),
    ]
    table[column] = dice.choice(columns)()
    if dice.random() < 0.2:
        table = table.head(dice.randrange(n))
    if dice.random() < 0.2:
        table = table.drop(columns=dice.choice(list(table.columns)))
    table.to_parquet(path, index=dice.random() < 0.2)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    folder = results(tmp_path_factory.mktemp("umap"), ["a", "b"], 30)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 8))])
def test_mutated_results_give_an_answer_or_one_sentence(good, tmp_path, seed):
    """Try forty mutations per seed; add seeds by hand for more."""
    dice = random.Random(seed)
    for _ in range(40):
        for name, raw in good.items():
            (tmp_path / name).write_bytes(raw)
        name = dice.choice(list(good))
        path = tmp_path / name
        by_kind = mutate_table if name.endswith("parquet") else mutate_json
        dice.choice([mutate_bytes, by_kind, by_kind])(path, dice)
        mutated = path.read_bytes()
        for use in (sg.read, read_and_pack):
            try:
                use(tmp_path)
            except (ValueError, OSError):
                continue
            except Exception as error:
                raise AssertionError(f"{use.__name__} of {name}: {mutated[:2000]!r}") from error


def read_and_pack(folder: Path) -> None:
    """Do everything that `explore` does except for rendering the page."""
    contents = read_contents(folder)
    about = contents.about()
    json.dumps(about, allow_nan=False)
    pack(contents.table, contents.names, [region["letter"] for region in about["regions"]])


def bomb(path: Path, kind: str) -> None:
    """Write a small file with a large table."""
    n = 30_000_000
    if kind == "rows":
        names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), ["a"]).cast(pa.string())
        table = pa.table({"run": names, "x": pa.array(np.zeros(n))})
    elif kind == "long texts":
        zeros = pa.array(np.zeros(200_000, np.int32))
        texts = pa.DictionaryArray.from_arrays(zeros, ["x" * 60_000])
        table = pa.table({"run": texts})
    elif kind == "one text":
        table = pa.table({"run": ["x" * 40_000_000]})
    elif kind == "columns":
        table = pa.table({f"c{i}": pa.array([1]) for i in range(12_000)})
    elif kind == "packed":
        table = pa.table({"x": pa.array(np.zeros(n // 2))})
    elif kind == "lists":
        table = pa.table({"x": pa.array([[0.0] * 1000] * 20_000)})
    else:
        table = pa.table({"run": [f"{'x' * 50_000}{i:05}" for i in range(6_000)]})
    packed = "zstd" if kind in ("packed", "a footer that lies") else "snappy"
    after = {"run": "DELTA_BYTE_ARRAY"} if kind == "texts by what they add" else None
    whole = kind != "packed" and after is None
    pq.write_table(table, path, compression=packed, use_dictionary=whole, column_encoding=after)
    if kind == "a footer that lies":
        path.write_bytes(lying(path))


def lying(path: Path) -> bytes:
    """Return the file with a footer that states 1,000 bytes for every uncompressed size."""
    raw, part = path.read_bytes(), pq.read_metadata(path).row_group(0)
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    head, tail = raw[:footer], raw[footer:]
    for size in {part.total_byte_size, part.column(0).total_uncompressed_size}:
        stated = varint(2 * size)
        assert stated in tail
        tail = tail.replace(stated, bytes(b | 128 for b in varint(2000).ljust(len(stated), b"\0"))[:-1] + b"\0")
    return head + tail


def varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


BOMBS = ("rows", "long texts", "one text", "columns", "packed", "lists", "texts by what they add", "a footer that lies")


def test_a_small_file_of_a_large_table_is_refused_before_it_is_read(tmp_path):
    """Limit the memory of all refusals together, above that of the imports."""
    for kind in BOMBS:
        bomb(tmp_path / f"{kind}.parquet", kind)
        assert (tmp_path / f"{kind}.parquet").stat().st_size < 4_000_000, kind
    code = (
        "import re, sys, pandas, pyarrow.parquet, pathlib\n"
        "from sae_geometry.io.parquet import read_table\n"
        "def peak():  # of this process; that of getrusage begins with its parent's\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n        read_table(pathlib.Path(sys.argv[1]), name + '.parquet')\n"
        "    except ValueError as error:\n        print('refused', error)\n"
        "print((peak() - before) >> 10)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *BOMBS], capture_output=True, text=True, timeout=120, check=True,
        env={"PYTHONPATH": str(Path(sg.__file__).parents[1]), "PATH": "/usr/bin"},
    )  # fmt: skip
    *refused, megabytes = made.stdout.splitlines()
    assert len(refused) == len(BOMBS)
    assert all(line.startswith("refused ") and len(line) < 600 for line in refused)
    assert int(megabytes) < 250


def test_a_footer_that_contradicts_itself_is_one_sentence(tmp_path):
    """The footer counts more levels than the column has, for which pyarrow would end the process."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"latent": list(range(20)), "name": ["a"] * 20}), path)
    raw = path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    counts = b"\x26\x00\x28"  # the integers 0 and 20, encoded
    assert raw[footer:].count(counts) == 2
    tail = raw[footer:-8].replace(counts, b"\x36\x00\x00\x28")
    path.write_bytes(raw[:footer] + tail + len(tail).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as a table of results"):
        read_table(tmp_path, "x.parquet")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        sg.read_labels(path)


def test_a_table_of_ours_is_far_within_the_bounds(tmp_path):
    n = 300_000
    frame = pd.DataFrame(
        {
            "run": ["a run with a name of some length"] * n, "latent_id": np.arange(n), "x": np.zeros(n),
            "alive": pd.array([None] * n, dtype="boolean"), "frequency": pd.array([None] * n, dtype="Float64"),
        }
    )  # fmt: skip
    sg_path = tmp_path / "umap.parquet"
    from sae_geometry.io.parquet import write_table

    write_table(frame, sg_path)
    pd.testing.assert_frame_equal(read_table(tmp_path, "umap.parquet"), frame)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"run": pd.array([], dtype="string"), "latent": pd.array([], dtype="Int64"), "cosine": []}),
        pd.DataFrame({"run": ["a"], "lists": [[1.0]]}).head(0),
        pd.DataFrame({"run": [None, None], "lists": [[], []]}),
    ],
    ids=["no rows", "no lists", "nothing known"],
)
def test_a_table_of_ours_without_values_is_read_back(tmp_path, frame):
    from sae_geometry.io.parquet import write_table

    write_table(frame, tmp_path / "x.parquet")
    read = read_table(tmp_path, "x.parquet")
    assert (read.shape, list(read.columns)) == (frame.shape, list(frame.columns))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, '{"points": 1' + "0" * 5000 + "}", '{"kind": "\\ud800"}']
)
def test_json_made_to_break_a_reader_is_one_sentence(good, tmp_path, text):
    for name, raw in good.items():
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        sg.explore(tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
