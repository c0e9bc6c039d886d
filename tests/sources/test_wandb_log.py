"""Tests of logging results to W&B with its real client: what arrives, and what is never touched."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import E2E
from logged import Invoke
from logged import pair as pair
from logged import run as run
from logged import sink as sink
from wandb_sink import Sink

import sae_geometry as sg
from sae_geometry.results import wandb_log

pytestmark = pytest.mark.usefixtures("blank_figures")
SOURCE = "d8vgjnyc"


@pytest.fixture
def saved(toy_pair: tuple[sg.Dictionary, sg.Dictionary], tmp_path: Path) -> Path:
    """Save a comparison."""
    return sg.save(sg.compare(*toy_pair), tmp_path / "saved", formats=["png"])


# ---- the names of the numbers ----------------------------------------------------------------------------------------


def test_metrics_are_flat_and_named_with_similarity_direction_and_matching(saved: Path) -> None:
    tables, record = sg.read(saved)
    table = next(iter(tables.values()))
    found = wandb_log.metrics(record)
    assert all(isinstance(v, int | float) and np.isfinite(v) for v in found.values())
    assert all(part and "." not in part for name in found for part in name.split("/"))
    nearest = table[table.direction == "a_to_b"].cosine.mean()
    assert found["decoder_cosine/a_to_b/nearest/mean_similarity_of_matched"] == pytest.approx(nearest)
    paired = table[table.direction == "b_to_a"].one_to_one_cosine.dropna().mean()
    assert found["decoder_cosine/b_to_a/optimal/mean_similarity_of_matched"] == pytest.approx(paired)
    assert found["double_counting/counts/both/greedy/n_pairs"] == 47
    assert found["decoder_cosine/a_to_b/nearest/fraction_of_source_above/0_7"] == pytest.approx(
        (table[table.direction == "a_to_b"].cosine > 0.7).mean()
    )


def test_absolute_and_signed_have_different_names() -> None:
    side = {"matching": "nearest", "similarity": "absolute decoder cosine", "n_matched": 3}
    assert wandb_log.metrics({"b_to_a": side}) == {"absolute_decoder_cosine/b_to_a/nearest/n_matched": 3}


def test_tables_of_runs_and_counted_lists_say_whose_each_number_is() -> None:
    record = {
        "similarity": "decoder cosine", "one_to_one_matching": "greedy", "runs": ["x", "y"],
        "mmcs": [[None, 0.5], [0.25, None]], "paired": [[None, 0.4], [0.4, None]],
        "n_nearest": [1, 4], "explained": [0.1, float("nan")], "caveats": [1], "threshold": 0.7,
        "checkpoints": [{"checkpoint": "samples_10", "share_born": 0.5, "samples": 10}],
        "pairs": [{"a": "x", "b": "y", "mmcs_a_to_b": 0.5}], "certificate": {"certified": True},
    }  # fmt: skip
    assert wandb_log.metrics(record) == {
        "decoder_cosine/x_to_y/nearest/mmcs": 0.5, "decoder_cosine/y_to_x/nearest/mmcs": 0.25,
        "decoder_cosine/x_to_y/greedy/paired": 0.4, "decoder_cosine/y_to_x/greedy/paired": 0.4,
        "explained/1": 0.1, "checkpoints/samples_10/share_born": 0.5, "checkpoints/samples_10/samples": 10,
        "pairs/x_to_y/mmcs_a_to_b": 0.5, "certificate/certified": 1,
    }  # fmt: skip


def test_only_tables_of_runs_by_runs_are_numbers_of_pairs() -> None:
    record = {
        "runs": ["a", "b"],
        "similarity": "decoder cosine",
        "one_to_one_matching": "optimal",
        "shared": [[None, 0.4], [0.3, None]],
        "shared_by_chance_at_most": [[None, 0.01], [0.02, None]],
        "recurrence": [[5, 3], [4, 4]],
    }
    found = wandb_log._pair_metrics(record)
    assert found == {
        "decoder_cosine/a_to_b/optimal/shared": 0.4,
        "decoder_cosine/b_to_a/optimal/shared": 0.3,
        "decoder_cosine/a_to_b/nearest/shared_by_chance_at_most": 0.01,
        "decoder_cosine/b_to_a/nearest/shared_by_chance_at_most": 0.02,
    }


# ---- recorded offline ------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[Any]:
    """Return what the client recorded, once its service has written the last record."""
    for _ in range(200):
        found = records_so_far(folder)
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.05)
    raise AssertionError(f"the record in {folder} has no exit record")


def records_so_far(folder: Path) -> list[Any]:
    """Parse a header, then 32 KiB blocks of LevelDB's log, in which each record is a protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.glob("run-*.wandb")
    raw, at, whole, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(raw):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", raw, at + 4)
        if at + 7 + size > len(raw):  # The service is still writing.
            break
        whole += raw[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found


@pytest.fixture
def offline(run: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the client's offline mode, an unreachable server and no key."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def test_offline_records_metrics_provenance_figures_tables_and_the_folder(
    offline: None, saved: Path, tmp_path: Path
) -> None:
    where = Path(sg.log_wandb(saved, "me/seeds"))
    made = records(where)
    [started] = [r.run for r in made if r.WhichOneof("record_type") == "run"]
    assert (started.entity, started.project, started.job_type) == ("me", "seeds", "sae-geometry")
    assert started.display_name == "Comparison: a, b"
    assert not started.host
    config = {u.key: json.loads(u.value_json) for u in started.config.update}
    _, record = sg.read(saved)
    assert config["inputs"] == record["inputs"]
    assert config["software"] == record["software"]
    assert config["command"] == record["command"]
    summary: dict[str, Any] = {}
    for r in made:
        if r.WhichOneof("record_type") == "summary":
            summary |= {"/".join([u.key, *u.nested_key]): json.loads(u.value_json) for u in r.summary.update}
    wanted = wandb_log.metrics(record)
    assert {k: summary.get(k) for k in wanted} == wanted
    names = {f.path for r in made if r.WhichOneof("record_type") == "files" for f in r.files.files}
    assert {n.rpartition("_")[0].rpartition("_")[0] for n in names if "/images/" in n} == {
        "media/images/figures/similarity", "media/images/figures/multiplicity", "media/images/figures/double_counting",
        "media/images/figures/partners", "media/images/figures/certainty",
    }  # fmt: skip
    [table] = where.glob("files/media/table/tables/matches_*.json")
    kept = json.loads(table.read_text())
    assert kept["columns"] == list(pd.read_parquet(saved / "matches.parquet"))
    assert len(kept["data"]) == 107
    artifacts = [
        r.request.log_artifact.artifact if r.WhichOneof("record_type") == "request" else r.artifact
        for r in made
        if r.WhichOneof("record_type") == "artifact" or r.request.WhichOneof("request_type") == "log_artifact"
    ]
    [folder] = [a for a in artifacts if a.type == wandb_log.ARTIFACT_TYPE]
    assert sorted(c.path for c in folder.manifest.contents) == sorted(
        p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("verb", ["compare", "within", "seeds", "agreement", "span", "split", "truth", "drift"])
def test_every_verb_that_saves_logs(
    offline: None, run: Invoke, pair: tuple[str, str], tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that logging is called with acceptable numbers and tables; starting the client costs a second per verb."""
    import wandb

    a, b = pair
    inputs = {"within": [a], "split": [b, a], "drift": [str(tmp_path / "steps")]}.get(verb, [a, b])
    if verb == "drift":
        (tmp_path / "steps").mkdir()
        for n in (1, 2):
            shutil.copy(E2E / "samples_400000.pt", tmp_path / "steps" / f"samples_{n}.pt")
    logged: list[tuple[Path, str]] = []
    monkeypatch.setattr(wandb_log, "log_wandb", lambda *given: logged.append(given) or "there")
    result = run(verb, *inputs, "--log-wandb", "me/p", "-q", "--format", "png")
    assert result.exit_code == 0, result.stderr
    assert "wandb sync there" in result.stdout
    [(folder, project)] = logged
    assert project == "me/p"
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert len(wandb_log.metrics(record)) > 5
    tables = list(wandb_log._tables(folder))
    assert tables
    for _, table in tables:
        wandb.Table(columns=list(table), data=wandb_log._rows(table))  # Table refuses a column of several types.


@pytest.mark.parametrize("verb", ["match", "umap"])
def test_the_client_records_what_a_verb_logs(offline: None, run: Invoke, pair: tuple[str, str], verb: str) -> None:
    more = {"umap": ["--n-epochs", "20", "--format", "png"], "match": []}[verb]
    result = run(verb, *pair, "--log-wandb", "me/p", "-q", *more)
    assert result.exit_code == 0, result.stderr
    [where] = Path("wandb").glob("offline-run-*")
    assert f"wandb sync {where.resolve()}" in result.stdout
    [started] = [r.run for r in records(where) if r.WhichOneof("record_type") == "run"]
    assert started.project == "p"
    if verb != "match":
        assert list(where.glob("files/media/images/figures/*.png"))
    assert list(where.glob("files/media/table/tables/*.json"))
    written = [u for r in records(where) if r.WhichOneof("record_type") == "summary" for u in r.summary.update]
    assert len(written) > 5


def test_a_table_keeps_its_first_thousand_rows(offline: None, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_log.N_ROWS == 1000
    frame = pd.DataFrame({"latent_id": range(2500), "alive": pd.array([True, None] * 1250, dtype="boolean")})
    frame.to_parquet(saved / "matches.parquet")
    where = Path(sg.log_wandb(saved, "me/p"))
    [table] = where.glob("files/media/table/tables/matches_*.json")
    data = json.loads(table.read_text())["data"]
    assert [row[0] for row in data] == list(range(1000))
    assert data[:2] == [[0, True], [1, None]]


# ---- against a server ------------------------------------------------------------------------------------------------


def test_everything_arrives_and_the_source_run_is_never_written_to(sink: Sink, run: Invoke, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", SOURCE)  # The source run's own process would set these.
    monkeypatch.setenv("WANDB_RESUME", "allow")
    source = f"wandb:sparsify/gpt2/{SOURCE}#samples_400000.pt"
    result = run("within", source, "--log-wandb", "sparsify/gpt2", "-o", "out", "--format", "png")
    assert result.exit_code == 0, result.stderr
    [first, *later] = sink.mutated("UpsertBucket")
    new = first["name"]
    assert f"logged to {sink.url}/sparsify/gpt2/runs/{new}" in result.stdout
    assert not Path("wandb").exists()

    # Everything must be written to the new run, and only the provenance may name the source.
    assert sink.mutations
    assert new != SOURCE
    assert json.loads(first["config"])["inputs"]["value"]["a"]["address"] == source
    for name, variables in sink.mutations:
        target = {k: v for k, v in variables.items() if k != "config"}
        assert SOURCE not in json.dumps(target), name
    assert {v["name"] for v in [first, *later]} == {new}
    assert {path for path, _ in sink.streamed} == {f"/files/sparsify/gpt2/{new}/file_stream"}
    assert not [path for path in sink.uploads if SOURCE in path]

    record = json.loads(Path("out/summary.json").read_text())
    wanted = wandb_log.metrics(record)
    assert {k: v for k, v in sink.summary().items() if k in wanted} == wanted
    [(name, files)] = sink.committed(wandb_log.ARTIFACT_TYPE).items()
    assert name == "out"
    assert files == {p.relative_to("out").as_posix(): p.read_bytes() for p in Path("out").rglob("*") if p.is_file()}
    picture = Path("out/figures/within.png").read_bytes()
    assert picture in [b for p, b in sink.uploads.items() if p.startswith("/run-files/media/images/figures/within_")]
    [rows] = [json.loads(b) for p, b in sink.uploads.items() if p.startswith("/run-files/media/table/tables/matches_")]
    assert len(rows["data"]) == record["within"]["n_source"]


def test_a_run_that_is_being_made_is_left_alone(offline: None, saved: Path, tmp_path: Path) -> None:
    """Run in a subprocess, because the client has one current run per process."""
    code = f"""
import wandb, sae_geometry as sg
mine = wandb.init(entity="me", project="mine", id="{SOURCE}", dir={str(tmp_path)!r}, mode="offline")
where = sg.log_wandb({str(saved)!r}, "me/p")
assert "{SOURCE}" not in where
assert wandb.run is mine and wandb.run.id == "{SOURCE}"
mine.log(dict(x=1))
print(sorted(dict(mine.summary)))
mine.finish()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "'x'" in done.stdout
    assert "nearest" not in done.stdout
