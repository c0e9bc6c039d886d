"""Tests of the command line as a user meets it: streams, exit codes, files, and errors in one sentence."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from memo import remember
from typer.testing import CliRunner

import sae_geometry
from sae_geometry.cli import app

A, B, NARROW = "demo:local-seed0", "demo:local-seed1", "demo:local-narrow-seed0"
undrawn = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAE_GEOMETRY_DEBUG", raising=False)
    remember(monkeypatch)

    def invoke(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    return invoke


def one_sentence(result) -> str:
    """Return the error line; fail if stderr has a traceback or more than one error."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


# ---- successful commands -------------------------------------------------------------------------------------------


@undrawn
def test_compare_writes_tables_summary_and_figures(run, demo):
    result = run("compare", NARROW, A)
    assert result.exit_code == 0, result.stderr
    folder = Path("compare-local-narrow-seed0-local-seed0")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "figures/certainty.pdf", "figures/certainty.png",
        "figures/double_counting.pdf", "figures/double_counting.png", "figures/multiplicity.pdf",
        "figures/multiplicity.png", "figures/partners.pdf", "figures/partners.png", "figures/similarity.pdf",
        "figures/similarity.png", "matches.parquet", "only-a.csv", "only-b.csv", "report.html", "shared.csv",
        "summary.json",
    ]  # fmt: skip
    assert f"wrote {folder}/   report.html" in result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("  shared one to one, cosine > 0.7")
    assert [line[2:19].strip() for line in lines[-8:-2:2]] == ["most alike", "in between", "without a partner"]
    assert "A local-narrow-seed0   512 live latents" in lines
    verbose = run("compare", NARROW, A, "--verbose", "-o", "all", "--format", "png").stdout
    assert "matching: nearest" in verbose
    assert "double counting explains" in verbose
    table = pd.read_parquet(folder / "matches.parquet")
    expected = sae_geometry.compare(demo["local-narrow-seed0"], demo["local-seed0"])
    np.testing.assert_array_equal(table["partner_id"][:512], expected.a_to_b.partner)


@undrawn
def test_json_is_alone_on_stdout_and_equals_the_file(run):
    result = run("compare", NARROW, A, "--json", "-o", "out", "--format", "png", "--matching", "mutual")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed == json.loads(Path("out/summary.json").read_text())
    assert printed["matching"] == "mutual"
    assert printed["a_to_b"]["similarity"] == "decoder cosine"
    assert "wrote out/" in result.stderr
    assert not list(Path("out/figures").glob("*.pdf"))


def test_quiet_says_nothing_on_stderr(run):
    result = run("within", NARROW, "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "nearest other" in result.stdout
    assert Path("within-local-narrow-seed0/figures/within.png").exists()


def test_umap_writes_its_files(run):
    result = run("umap", NARROW, "--n-epochs", "10", "--format", "svg", "--style", "e2e", "--seed", "5")
    assert result.exit_code == 0, result.stderr
    folder = Path("umap-local-narrow-seed0")
    assert {p.name for p in folder.iterdir()} == {
        "figures", "neuronpedia.csv", "regions.json", "report.html", "summary.json", "umap.parquet",
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["params"]["seed"] == 5
    assert "trustworthiness" in result.stdout


@undrawn
def test_a_second_run_takes_a_new_folder(run):
    for _ in range(2):
        assert run("within", NARROW, "--format", "png").exit_code == 0
    assert {p.name for p in Path().iterdir()} == {"within-local-narrow-seed0", "within-local-narrow-seed0-2"}


@pytest.mark.usefixtures("two_files", "blank_figures")
def test_labels_name_the_runs_and_the_folder(run):
    result = run("compare", "my narrow=./a.safetensors", "wide one=./b.safetensors", "--format", "png")
    assert result.exit_code == 0, result.stderr
    assert Path("compare-my_narrow-wide_one").is_dir()
    assert "A my narrow   47 latents" in result.stdout


def test_inspect_and_demos(run):
    shown = run("inspect", A)
    assert shown.exit_code == 0
    for part in ("1,536 latents", "blocks.24.hook_resid_pre", "1,536 of 1,536 alive", "W_dec [1536, 576] float16"):
        assert part in shown.stdout
    record = json.loads(run("inspect", A, "--json").stdout)
    assert {"key": "W_dec", "shape": [1536, 576], "dtype": "float16"} in record["tensors"]
    assert record["dictionaries"][0]["decoder"] == "W_dec [n_latents, width]"
    listed = run("demos").stdout
    assert listed.count("demo:") == 9
    assert len(json.loads(run("demos", "--json").stdout)) == 9


def test_doctor_checks_exactness(run, monkeypatch):
    from sae_geometry.cost import rates

    monkeypatch.setattr(rates, "_LONG_ENOUGH", 0.001)
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    for part in ("torch", "numpy", "umap-learn", "exact (9 cases", "| torch.mm alone |", "| sweep, cpu |"):
        assert part in result.stdout
    found = json.loads(run("doctor", "--json").stdout)
    assert result.stdout.splitlines()[0] == found["verdict"] == "Works, exact on the CPU. Nothing to do."
    assert all(v.startswith("exact") for v in found["checks"].values())
    assert found["rates"]["lines"][-1]["over_product"] > 0


def test_doctor_says_when_a_check_fails(run, monkeypatch):
    from sae_geometry.cost import doctor
    from sae_geometry.kernels import selfcheck as suite

    monkeypatch.setattr(doctor, "measure_rates", partial(doctor.measure_rates, rows=64))
    case = next(suite.cases())
    assert case.b is not None
    monkeypatch.setattr(suite, "truths", lambda: ((case, np.zeros((len(case.a), len(case.b)))),))
    result = run("doctor")
    assert result.exit_code == 1
    assert result.stdout.startswith("Wrong results on this machine (sweep, cpu; sweep, int8; sweep, torch): do not use")
    assert "WRONG" in result.stdout
    assert "check failed" in one_sentence(result)


@pytest.mark.usefixtures("two_files", "blank_figures")
def test_fail_under(run):
    pair = "./a.safetensors", "./b.safetensors"
    assert run("compare", *pair, "--fail-under", "0.1", "-o", "one", "--format", "png").exit_code == 0
    result = run("compare", *pair, "--fail-under", "0.99", "-o", "two", "--format", "png")
    assert result.exit_code == 3
    assert "below --fail-under 0.99" in one_sentence(result)
    assert Path("two/summary.json").exists()


@undrawn
def test_absolute_and_all_latents_are_said(run):
    result = run("compare", NARROW, NARROW, "--absolute", "--latents", "all", "--json", "-o", "out", "--format", "png")
    summary = json.loads(result.stdout)
    assert summary["similarity"] == "absolute decoder cosine"
    assert summary["inputs"]["a"]["n_latents"] == 512
    assert "none dropped" in summary["inputs"]["a"]["latents"]


def test_version(run):
    assert run("--version").stdout == f"sae-geometry {sae_geometry.__version__}\n"


# ---- failing commands ----------------------------------------------------------------------------------------------


@pytest.fixture
def other_space(tmp_path) -> Path:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    path = tmp_path / "other.safetensors"
    weights = {"W_dec": rng.standard_normal((9, 576)).astype(np.float32), "b_enc": np.zeros(9, np.float32)}
    save_file(weights, path, {"hook_point": "blocks.2.hook_resid_pre", "model": "SmolLM2-135M-Instruct"})
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["compare", "demo:nothing", A], 1, "local-narrow-seed0"),
        (["compare", "./not-there.safetensors", A], 1, "not-there.safetensors"),
        (["compare", NARROW, A, "-o", "full"], 2, "not empty"),
        (["umap", NARROW, "--n-neighbors", "1"], 2, "2…64"),
        (["umap", NARROW, "--n-neighbors", "500"], 2, "got 500"),
        (["umap", NARROW, "--backend", "cuml"], 2, "use --backend numba"),
        (["within", NARROW, "--device", "cuda"], 2, "--device cuda is not available"),
    ],
)
def test_what_goes_wrong_is_one_sentence(run, arguments, code, part, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert part in one_sentence(result)
    assert result.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "mine").read_text() == "x"


@undrawn
def test_mismatched_spaces_need_a_word(run, other_space):
    result = run("compare", str(other_space), A)
    assert result.exit_code == 2
    assert "--allow-mismatch" in one_sentence(result)
    allowed = run("compare", str(other_space), A, "--allow-mismatch", "-o", "out", "--format", "png")
    assert allowed.exit_code == 0, allowed.stderr
    assert "different hook point" in allowed.stdout
    assert any("different hook point" in c for c in json.loads(Path("out/summary.json").read_text())["caveats"])


@pytest.mark.parametrize("arguments", [["compare", A], ["compare", A, B, "--matching", "best"], ["nonsense"]])
def test_wrong_use_is_two(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@undrawn
def test_bad_rows_can_be_dropped(run, tmp_path):
    w = np.random.default_rng(0).standard_normal((9, 5))
    w[4] = 0
    np.save(tmp_path / "bad.npy", w)
    result = run("within", "./bad.npy")
    assert result.exit_code == 2
    assert "--drop-bad" in one_sentence(result)
    dropped = run("within", "./bad.npy", "--drop-bad")
    assert dropped.exit_code == 0, dropped.stderr
    assert "1 latent dropped: zero or non-finite" in " ".join(dropped.stdout.split())


def test_quiet_is_quiet_with_any_name(run, tmp_path):
    np.savez(tmp_path / "ok.npz", W_dec=np.random.default_rng(0).standard_normal((9, 9)))
    (tmp_path / "a$b$.npz").write_bytes((tmp_path / "ok.npz").read_bytes())
    for address in ("./ok.npz", "漢字=./ok.npz", "./a$b$.npz"):
        done = run("within", address, "-q")
        assert done.exit_code == 0, done.stderr
        assert done.stderr == ""


def test_long_labels_make_a_folder_all_the_same(run):
    result = run("within", f"{'漢' * 200}={NARROW}", "--format", "png")
    assert result.exit_code == 0, result.stderr


def test_an_unexpected_error_is_reported_as_a_bug(run, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("gears\nfell out")

    monkeypatch.setattr(sae_geometry, "within", broken, raising=False)
    result = run("within", NARROW)
    assert result.exit_code == 1
    assert "RuntimeError: gears fell out (this looks like a bug" in one_sentence(result)
    monkeypatch.setenv("SAE_GEOMETRY_DEBUG", "1")
    told = run("within", NARROW)
    assert told.exit_code == 1
    assert "Traceback (most recent call last)" in told.stderr
    assert told.stderr.endswith("RuntimeError: gears\nfell out\n")


def test_ctrl_c_writes_nothing(run, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sae_geometry, "within", interrupted, raising=False)
    result = run("within", NARROW)
    assert result.exit_code == 130
    assert "half-written" in one_sentence(result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    ["compare A B", "match A B", "within A", "seeds A B", "agreement A B", "span A B", "split N A", "umap A B"],
)
def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(run, command, monkeypatch):
    from sae_geometry.cost import estimate as planning

    monkeypatch.setattr(planning, "_probe", lambda *_: (0.0, 1e-12))
    verb, *inputs = [{"A": A, "B": B, "N": NARROW}.get(word, word) for word in command.split()]
    result = run(verb, *inputs, "--dry-run", "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{verb}: ")
    assert "not counted" in result.stdout
    found = json.loads(run(verb, *inputs, "--dry-run", "--json", "-q", "--memory", "64MB").stdout)
    matched = verb in ("match", "seeds", "span", "umap")  # These verbs load and compile the solver, whatever the limit.
    assert found["memory"] <= (64 << 20) + planning._LOADED * matched
    assert found["verb"] == verb
    assert list(Path().iterdir()) == []


def test_a_dry_run_of_drift_counts_the_checkpoints(run, tmp_path):
    import shutil

    state = Path(__file__).parents[1] / "sources" / "checkpoints" / "e2e_sae_single" / "samples_400000.pt"
    (tmp_path / "states").mkdir()
    for n in (100, 200, 300):
        shutil.copy(state, tmp_path / "states" / f"samples_{n}.pt")
    found = json.loads(run("drift", "./states", "--dry-run", "--json", "-q").stdout)
    assert found["n_sweeps"] == 0
    assert found["flops"] > 0


@undrawn
def test_a_memory_ceiling_holds_for_the_command_and_ends_with_it(run):
    from sae_geometry.kernels.blocks import DEFAULT_MEMORY, memory_limit

    result = run("within", A, "--memory", "10 MB", "--json", "-q", "--format", "png")
    assert result.exit_code == 0, result.stderr
    swept = json.loads(result.stdout)["sweep"]
    assert swept["memory"] == 10 << 20
    assert 4 * 2 * swept["threads"] * swept["blocks"][0] * swept["blocks"][1] < 10 << 20
    assert memory_limit(None, "cpu") == DEFAULT_MEMORY
    refused = run("within", A, "--memory", "100KB", "-o", "other")
    assert refused.exit_code == 2
    size = re.search(r"raise it with --memory (\d+MB)", one_sentence(refused))
    assert size is not None
    assert run("within", A, "--memory", size[1], "-o", "enough", "--format", "png").exit_code == 0
    assert not Path("other").exists()
    assert run("within", A, "--memory", "plenty").exit_code == 2


def test_estimate_says_what_a_question_would_cost(run):
    result = run("estimate", NARROW, A)
    assert result.exit_code == 0, result.stderr
    for part in ("compare: 8 sweeps on cpu", "operations", "in addition to the inputs", "time"):
        assert part in result.stdout
    found = json.loads(run("estimate", NARROW, A, "--for", "umap", "--json", "-q").stdout)
    assert found["flops"] > 0
    alone = run("estimate", A)
    assert alone.exit_code == 2
    assert one_sentence(alone)


@pytest.fixture
def two_files(tmp_path):
    """Write two small dictionaries with encoders to ./a.safetensors and ./b.safetensors."""
    from oracles import related_decoders
    from safetensors.numpy import save_file

    for name, decoder in zip("ab", related_decoders(np.random.default_rng(0), 47, 60, 12, 30), strict=True):
        weights = {"W_dec": decoder.astype(np.float32), "W_enc": np.ascontiguousarray(decoder.T, dtype=np.float32)}
        save_file(weights, tmp_path / f"{name}.safetensors")


@pytest.mark.usefixtures("two_files", "blank_figures")
@pytest.mark.parametrize(
    "command", ["compare A B", "within A", "seeds A B", "agreement A B", "span A B", "split A B", "umap A", "match A B"]
)
def test_every_summary_says_which_screen_swept_and_why(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    verb, *inputs = command.replace("A", "./a.safetensors").replace("B", "./b.safetensors").split()
    more = {"match": [], "umap": ["--n-epochs", "2", "--format", "png"]}.get(verb, ["--format", "png"])
    result = CliRunner().invoke(app, [verb, *inputs, "-o", "out", "-q", *more])
    assert result.exit_code == 0, result.stderr
    sweeps = json.loads(Path("out", "summary.json").read_text())["sweeps"]
    assert sum(entry["sweeps"] for entry in sweeps) >= 1
    assert "tensors are on the CPU; the product is small" in {entry["why"] for entry in sweeps}
    for entry in sweeps:
        assert entry["screen"] == "cpu-float32"
        assert entry["why"] in ("tensors are on the CPU; the product is small", "as in the comparison")
        assert entry["device"] == "cpu"
