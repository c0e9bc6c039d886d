"""Tests of the inputs of every command: arrays in either orientation, bad rows, and costs that are shown in advance."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.cost import estimate as planning

pytestmark = pytest.mark.usefixtures("blank_figures")


def run(*arguments: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [str(a) for a in arguments])
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture
def turned(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> float:
    """Save two arrays whose columns are latents, a.npy and b.npy, and return their MMCS."""
    monkeypatch.chdir(tmp_path)
    a = rng.standard_normal((40, 8)).astype(np.float32)
    b = a[rng.permutation(40)] + 0.5 * rng.standard_normal((40, 8)).astype(np.float32)
    np.save("a.npy", a.T)
    np.save("b.npy", b.T)
    return sg.compare(a, b).a_to_b.mmcs


@pytest.mark.parametrize(
    "arguments",
    [("./a.npy", "./b.npy", "--latent-axis", 1), ("./a.npy::latent_axis=1", "./b.npy::latent_axis=1"),
     ("./a.npy::latent_axis=1", "./b.npy", "--latent-axis", 1)],
)  # fmt: skip
def test_columns_are_latents_if_stated(turned: float, arguments: tuple[object, ...]) -> None:
    code, out, error = run("compare", *arguments, "-q", "--json", "--format", "png")
    assert code == 0, error
    summary = json.loads(out)
    assert summary["a_to_b"]["mean_similarity_of_matched"] == pytest.approx(turned, abs=1e-6)
    assert summary["inputs"]["a"]["address"].endswith("a.npy::latent_axis=1")


@pytest.mark.parametrize("verb", ["seeds", "umap", "flow"])
def test_a_pattern_stands_for_several_runs(verb: str) -> None:
    code, out, _ = run("estimate", "demo:local-seed0", "demo:local-seed1", "--for", verb, "--json", "-q")
    same = run(verb, "demo:local-seed{0,1}", "--dry-run", "--json", "-q")
    assert (code, same[0]) == (0, 0)
    assert json.loads(same[1])["flops"] == json.loads(out)["flops"]


def test_the_caveat_of_a_bare_array_names_the_option(turned: float) -> None:
    code, _, error = run("within", "./a.npy", "--format", "png")
    assert code == 0
    assert "--latent-axis 1 takes its columns" in error


@pytest.fixture
def bad(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Save two states of a run, samples_1.pt with a zero row and samples_2.pt, and two arrays, x.npy and y.npy."""
    monkeypatch.chdir(tmp_path)
    rows = rng.standard_normal((30, 8)).astype(np.float32)
    for n in (1, 2):
        w = rows + n * rng.standard_normal((30, 8)).astype(np.float32)
        w[n if n == 1 else []] = 0.0
        state = {"h.decoder.weight": torch.from_numpy(w.T.copy()), "h.encoder.0.weight": torch.from_numpy(w + 1)}
        torch.save(state | {"h.encoder.0.bias": torch.zeros(30)}, f"samples_{n}.pt")
    rows[3] = 0.0
    np.save("x.npy", rows)
    np.save("y.npy", rows[::-1])
    return rows


def test_match_leaves_out_bad_rows(bad: np.ndarray) -> None:
    code, _, error = run("match", "./x.npy", "./y.npy", "-q")
    assert code == 2
    assert "pass --drop-bad to drop and record them" in error
    assert "drop_bad" not in error
    code, out, error = run("match", "./x.npy", "./y.npy", "-q", "--drop-bad", "--json")
    assert code == 0, error
    assert json.loads(out)["pw_mcc"]["signed"]["n_pairs"] == 29


def test_drift_leaves_out_what_is_bad_in_any_state(bad: np.ndarray) -> None:
    code, _, error = run("drift", ".", "-q", "--format", "png")
    assert code == 2
    assert "pass --drop-bad" in error
    code, out, error = run("drift", ".", "-q", "--drop-bad", "--json", "--format", "png")
    assert code == 0, error
    assert json.loads(out)["n_latents"] == 29
    whole = sg.drift(Path.cwd(), drop_bad=True)
    assert 1 not in whole.final.latent_ids
    assert whole.to_final.shape == (2, 29)
    assert np.isfinite(whole.to_final).all()


def test_match_prints_its_expected_cost(bad: np.ndarray) -> None:
    _, _, error = run("match", "./x.npy", "./x.npy", "--drop-bad")
    assert re.search(r"matching takes about [\d.e-]+ GB in addition to the inputs", error)


def test_a_dry_run_accepts_what_the_real_run_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "_probe", lambda *_: (0.0, 1e-12))
    big = np.random.default_rng(0).standard_normal((250_000, 4)).astype(np.float32)
    np.save("big.npy", big)
    np.save("small.npy", big[:300])
    for arguments in (("match", "./big.npy", "./small.npy"), ("umap", "./big.npy")):
        code, out, error = run(*arguments, "--dry-run", "--json", "-q")
        assert code == 0, error
        assert json.loads(out)["memory"] > 200 << 20
    code, _, error = run("match", "./big.npy", "./small.npy", "--dry-run", "-q", "--memory", "64MB")
    assert code == 2
    size = re.search(r"raise it with --memory (\d+MB)", error)
    assert size is not None
    assert run("match", "./big.npy", "./small.npy", "--dry-run", "-q", "--memory", size[1])[0] == 0
