"""Tests of the real command against loopback servers: it downloads once, resumes, falls back on mirrors, and judges."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_server import HuggingFace, StoredRepo
from reproduction_cases import FIGURES, call
from safetensors.numpy import save as safetensors
from scipy.optimize import linear_sum_assignment
from synthetic import D_IN, FILE, fill, stored_run, unit_decoder
from wandb_server import Loopback, slow, status

import sae_geometry as sg
from analyses.common.published import Expected
from analyses.common.runs import Run, read_runs
from analyses.e2e_paper.reproduce import main
from analyses.seed_dependence.reproduce import main as seed_dependence
from sae_geometry.kernels.settings import Limits, changed
from sae_geometry.sources.catalog import paper_runs

ROOT = Path(sg.__file__).parents[1]
RUNS = read_runs(ROOT / "analyses" / "e2e_paper" / "runs.toml")
LOCAL, E2E, DOWNSTREAM = (f"sparsify/gpt2/{r}" for r in ("1jy3m5j0", "zgdpkafo", "2lzle2f0"))
THREE = [(LOCAL, "local", 6), (E2E, "e2e", 6), (DOWNSTREAM, "e2e+ds", 6)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set an empty cache, a home without credentials, and short waits."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "NETRC", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAE_GEOMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    (tmp_path / "home").mkdir()
    with changed(limits=Limits(connect=1.0, silence=0.5, tries=2, pause=0.01, longest_pause=0.05)):
        yield tmp_path


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Start a W&B without runs."""
    server = Loopback()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    server.close()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFace]:
    """Start a Hugging Face without repositories."""
    from huggingface_hub import constants

    server = HuggingFace()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "no-token"))
    yield server
    server.close()


def downloads(world: Loopback) -> dict[str, int]:
    """Count the downloads of each run's weights that start from the first byte."""
    found: dict[str, int] = {}
    for method, path, headers in world.requests:
        if method == "GET" and path.endswith(FILE) and "range" not in headers:
            run = path.removeprefix("/files/").removesuffix(f"/{FILE}")
            found[run] = found.get(run, 0) + 1
    return found


def naive_within(rows: np.ndarray) -> float:
    matrix = rows @ rows.T
    np.fill_diagonal(matrix, -np.inf)
    return float(matrix.max(axis=1).mean())


def value(table: str, name: str) -> tuple[float, str]:
    """Return our number and the verdict in the first row of the table for a claim."""
    line = next(row for row in table.splitlines() if row.startswith(f"{name}  "))
    cells = [c for c in line.split("  ") if c.strip()]
    return float(cells[2].split()[0].replace(",", "")), cells[3].strip()


def command(*arguments: str) -> subprocess.Popen[str]:
    """Run the command in a subprocess, as the user types it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return subprocess.Popen(
        [sys.executable, "-m", "analyses.e2e_paper", *arguments], cwd=ROOT, env=env, stdout=-1, stderr=-1, text=True
    )


def test_the_whole_paper_interrupted_and_resumed_downloads_once(world: Loopback, home: Path) -> None:
    """Make every figure from all runs of runs.toml, press Ctrl-C halfway, and run the same command twice more."""
    everything = [(r.id, r.kind, int(r.layer or 0)) for r in RUNS.runs]
    planted = fill(world, everything)
    used = {r.id for r in (*RUNS.of("ce", "l0", "alive"), *RUNS.of("figure-seed0", "figure-seed1"))}
    later = next(r.id for r in RUNS.of("figure-seed1"))
    fault = slow(400.0)  # This is longer than the wait below, because an interrupted download is not waited for.
    world.faults[FILE] = lambda h, c: fault(h, c) if later in h.path else h.send_content(c)
    arguments = ("--out", str(home / "out"), "--n-epochs", "20", "--device", "cpu")
    first = command(*arguments)
    deadline = time.monotonic() + 300
    while later not in downloads(world):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=200)
    assert first.returncode == 130, (out, err)
    assert err.endswith("stopped; finished figures and values are saved, and the same command continues from there\n")
    kept = home / "out" / "e2e_paper-fig3a.png"
    assert sorted(p.name for p in (home / "out").glob("*.png")) == [kept.name], "one figure was finished"
    written = kept.stat().st_mtime_ns

    world.faults.clear()
    second = command(*arguments)
    out, err = second.communicate(timeout=600)
    assert second.returncode == 3, err
    assert "fig3a: already finished" in err
    assert kept.stat().st_mtime_ns == written
    assert {p.stem for p in (home / "out").glob("*.png")} == {f"e2e_paper-{f}" for f in FIGURES["e2e_paper"]}
    counts = downloads(world)
    assert set(counts) == used, "seed pairs that no figure shows should not be fetched"
    assert {run: n for run, n in counts.items() if n != 1 and run != later} == {}
    within = {r: naive_within(planted[r]) for r in (LOCAL, E2E, DOWNSTREAM)}
    assert value(out, "within/6/local-e2e")[0] == pytest.approx(within[LOCAL] - within[E2E], abs=1e-4)
    assert value(out, "within/6/local-e2e+ds")[0] == pytest.approx(within[LOCAL] - within[DOWNSTREAM], abs=1e-4)
    for layer, kind in itertools.product((2, 6, 10), ("local", "e2e", "e2e+ds")):
        run = RUNS.find("ce", kind=kind, layer=layer)
        assert run is not None
        assert value(out, f"alive/{layer}/{kind}") == (len(planted[run.id]), "fail")
    assert "not available" not in out

    n_requests = len(world.requests)
    code, table, notes = call(main, *arguments)
    assert (code, table) == (second.returncode, out)
    assert notes.count("already finished") == len(FIGURES["e2e_paper"])
    assert len(world.requests) == n_requests, "a finished reproduction should send no request"


def test_planted_values_pass_and_fail(world: Loopback, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = fill(world, THREE)
    true = naive_within(planted[LOCAL]) - naive_within(planted[E2E])
    arguments = ("--only", "fig3a", "--out", str(home / "out"))
    for published, outcome, expected_code in ((true + 0.0005, "pass", 0), (true + 0.01, "fail", 3)):
        claims = (Expected("within/6/local-e2e", "planted", "here", "fig3a", published, 0.001),)
        monkeypatch.setattr("analyses.common.command.read_expected", lambda _, claims=claims: claims)
        code, table, _ = call(main, *arguments)
        assert (code, value(table, "within/6/local-e2e")[1]) == (expected_code, outcome)
    assert "0.01 off; within 0.001 would pass: within/6/local-e2e" in table


def test_other_weights_under_the_same_name_make_the_figure_again(world: Loopback, home: Path) -> None:
    fill(world, THREE)
    arguments = ("--only", "fig3a", "--out", str(home / "out"))
    before = call(main, *arguments)[1]
    world.runs[E2E] = stored_run("e2e", 6, unit_decoder(99), range(50))
    assert "fig3a: already finished" in call(main, *arguments)[2], "the cached weights are the same"
    from sae_geometry.sources import clear_cache

    clear_cache()
    _, after, notes = call(main, *arguments)
    assert "fig3a: wrote" in notes
    assert value(after, "within/6/local-e2e") != value(before, "within/6/local-e2e")
    assert value(after, "within/6/local-e2e+ds") == value(before, "within/6/local-e2e+ds")


def test_an_unavailable_run_costs_only_its_figures(world: Loopback, hub: HuggingFace, home: Path) -> None:
    pairs = [(r.id, r.kind, 6) for r in RUNS.of("figure-seed0", "figure-seed1")]
    fill(world, [*pairs, *THREE])
    del world.runs[E2E]
    code, table, notes = call(main, "--only", "fig3a", "--only", "fig3b", "--only", "fig3c", "--out", str(home / "out"))
    assert code == 1
    assert sorted(p.name for p in (home / "out").glob("*.png")) == ["e2e_paper-fig3b.png"]
    assert notes.count("is not available from any source") == 2, "it should be reported for both figures"
    assert "fig3b: wrote" in notes
    assert value(table, "across-seeds/6/local")[1] in ("pass", "fail")
    for row in table.splitlines():
        if row.startswith(("within/", "across-types/")):
            assert "not available" in row


def test_a_mirror_that_does_not_know_the_alive_draws_but_is_not_compared(
    world: Loopback, hub: HuggingFace, home: Path
) -> None:
    world.graphql_fault = status(403)
    files = {}
    for at, (run_id, _, _) in enumerate(THREE):
        run = next(r for r in RUNS.of("ce") if r.id == run_id)
        files[_apollo(run)] = _apollo_file(unit_decoder(at))
    hub.repos["apollo-research/e2e-saes-gpt2"] = StoredRepo(files, commit="713515193ec799fd17bd7f6ccf6f209332b07f7d")
    code, table, notes = call(main, "--only", "fig3a", "--out", str(home / "out"))
    assert code == 0
    assert "fig3a: wrote" in notes
    assert table.count("not available") == 3
    assert "does not state which latents are alive" in table


def test_seed_dependence_from_hugging_face_by_the_authors_arithmetic(hub: HuggingFace, home: Path) -> None:
    """Compare ten tiny sparsify SAEs at the paper's addresses with the authors' script, on dense matrices."""
    runs = read_runs(ROOT / "analyses" / "seed_dependence" / "runs.toml").of("pair-a", "pair-b")
    planted: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for at, run in enumerate(runs):
        decoder, encoder = planted[run.address] = _twins(at)
        repo, path = run.address.removeprefix("hf://").split("/", 2)[:2], run.address.split("/", 4)[4]
        files = hub.repos.setdefault("/".join(repo), StoredRepo({}, small=set())).files
        files[f"{path}/cfg.json"] = json.dumps({"d_in": D_IN, "num_latents": len(decoder), "k": 4}).encode()
        files[f"{path}/sae.safetensors"] = safetensors(
            {
                "W_dec": decoder.astype(np.float32) * 2,
                "encoder.weight": encoder.astype(np.float32),
                "encoder.bias": np.zeros(len(decoder), np.float32),
                "b_dec": np.zeros(D_IN, np.float32),
            }
        )
    code, table, notes = call(seed_dependence, "--only", "widths", "--out", str(home / "out"))
    assert code == 3, notes
    for a, b in zip(runs[::2], runs[1::2], strict=True):
        (dec_a, enc_a), (dec_b, enc_b) = planted[a.address], planted[b.address]
        dec, enc = dec_a @ dec_b.T, enc_a @ enc_b.T
        by_dec, by_enc = (linear_sum_assignment(m, maximize=True)[1] for m in (dec, enc))
        rows = np.arange(len(dec))
        shared = ((dec[rows, by_dec] > 0.7) & (enc[rows, by_enc] > 0.7)).mean()
        double = ((dec.max(axis=1) > 0.7) & (enc.max(axis=1) > 0.7)).mean()
        ours = {
            name: value(table, f"{name.format(a.width)}")[0]
            for name in ("shared/{}/one-to-one", "shared/{}/double-counting", "same-partner/{}", "mmcs/{}")
        }
        assert 0.1 < shared < double < 0.9, "a case worth testing"
        expected = (shared, double, (by_dec == by_enc).mean(), dec.max(axis=1).mean())
        assert tuple(ours.values()) == pytest.approx(expected, abs=1e-4)
    asked = [path for method, path, _ in hub.requests if method == "GET" and path.endswith("sae.safetensors")]
    assert len(asked) == len(set(asked)) == len(runs)


def _twins(at: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit decoder and encoder rows of one of two seeds that share some directions, some of them twice."""
    shared = np.random.default_rng(1000 + at // 2)
    own = np.random.default_rng(at)
    found = []
    for noise in (0.06, 0.1):
        rows = shared.standard_normal((40, D_IN))
        rows[30:] = own.standard_normal((10, D_IN))
        rows[25:30] = rows[20:25] + (0.3 * own.standard_normal((5, D_IN)) if at % 2 == 0 else 3 * rows[:5])
        rows += noise * np.linalg.norm(rows, axis=1, keepdims=True) * own.standard_normal((40, D_IN))
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    order = own.permutation(40)
    return found[0][order], found[1][order]


def _apollo(run: Run) -> str:
    return paper_runs()[run.address].mirrors[-1].rpartition("/")[2]


def _apollo_file(decoder: np.ndarray) -> bytes:
    out = io.BytesIO()
    n, d = decoder.shape
    state = {
        "encoder.weight": torch.randn(n, d, generator=torch.Generator().manual_seed(0)),
        "encoder.bias": torch.zeros(n),
        "decoder.weight": torch.from_numpy(decoder.T.astype(np.float32).copy()),
        "decoder.bias": torch.zeros(d),
    }
    torch.save(state, out)
    return out.getvalue()
