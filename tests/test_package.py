"""Tests of the release: the wheel and the sdist, every extra, and the project's files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import sae_geometry as sg

ROOT = Path(sg.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=os.environ | more
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it."""
    pytest.importorskip("build", reason="the package is built with the dev extra")
    pytest.importorskip("hatchling", reason="the package is built with the dev extra")
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_has_what_the_package_needs_and_nothing_of_the_tests(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert wheel.name == f"sae_geometry-{sg.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {n for n in names if not n.split("/")[0].endswith(".dist-info")}
    tracked = [p for p in (ROOT / "sae_geometry").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert package == {p.relative_to(ROOT).as_posix() for p in tracked}
    for needed in ("py.typed", "schemas/match.schema.json", "catalog/e2e_runs.json", "demo/local-seed0.safetensors"):
        assert any(n.endswith(f"/{needed}") for n in package), needed
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_the_sdist_can_be_tested(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "tests/conftest.py"} <= names
    # Other files at the root must not be published.
    files, folders = {n for n in names if "/" not in n}, {n.partition("/")[0] for n in names if "/" in n}
    assert files - folders <= {
        ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE",
        "Makefile", "PKG-INFO", "README.md", "constraints-oldest.txt", "constraints.txt",
        "mkdocs.yml", "pyproject.toml",
    }  # fmt: skip
    assert folders <= {".github", "analyses", "benchmarks", "docs", "sae_geometry", "tests"}
    assert {n.rpartition(".")[2] for n in names if n.startswith("sae_geometry/") and "." in n.rpartition("/")[2]} <= {
        "css", "html", "js", "json", "md", "parquet", "pt", "py", "safetensors", "typed", "yaml",
    }  # fmt: skip


def test_twine_accepts_the_package(built: Path) -> None:
    done = run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()), NO_COLOR="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_works_where_the_source_is_not(built: Path, tmp_path: Path) -> None:
    """Install it into a separate environment that borrows the dependencies of this one."""
    [wheel] = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "new")], check=True)
    python = str(tmp_path / "new" / "bin" / "python")
    done = run("uv", "pip", "install", "--no-deps", "--offline", "--python", python, str(wheel), PATH=_path())
    assert done.returncode == 0, done.stderr
    [site] = (tmp_path / "new").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = "import sae_geometry as sg; print(sg.__file__); print(sg.load('demo:local-seed0').n_latents)"
    shown = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    where, n_latents = shown.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert n_latents == "1536"
    command = tmp_path / "new" / "bin" / "sae-geometry"
    help_text = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "compare" in help_text


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def resolved(requirements: list[str], platform: str, tmp_path: Path) -> dict[str, str]:
    """Return what uv would install, by name, from metadata alone."""
    wanted = tmp_path / "wanted.in"
    wanted.write_text("\n".join(requirements))
    done = run(
        "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-platform", platform,
        "--python-version", "3.11", str(wanted), PATH=_path(),
    )  # fmt: skip
    if (
        done.returncode
        and re.search("dns error|failed to fetch|connect", done.stderr, re.I)
        and not os.environ.get("CI")
    ):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr
    lines = [line.split("==") for line in done.stdout.splitlines() if "==" in line]
    return {name: version.split()[0] for name, version in lines}


@pytest.mark.network
@pytest.mark.parametrize("extra", ["cu13", "dask-cuda"])
def test_extras_for_a_gpu_can_be_resolved_for_linux(extra: str, tmp_path: Path) -> None:
    """The other extras are parts of the dev extra, with which this test runs."""
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]
    found = resolved(wanted, "linux", tmp_path)
    assert {"torch", "numpy", "umap-learn"} <= found.keys()
    if extra == "cu13":
        assert tuple(map(int, found["cuml-cu13"].split(".")[:2])) >= (26, 4)
        assert any(name.startswith("cupy-cuda13") for name in found)


@pytest.mark.network
def test_cu13_asks_nothing_of_a_mac(tmp_path: Path) -> None:
    found = resolved(PROJECT["optional-dependencies"]["cu13"] + ["numpy"], "macos", tmp_path)
    assert set(found) == {"numpy"}


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"] == sg.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["license"] == PROJECT["license"] == "MIT"
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heading
    assert heading[1] == sg.__version__


def test_the_hooks_are_local_and_understood() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [r["repo"] for r in hooks["repos"]] == ["local"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks["repos"][0]["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").split()[0]
        assert f"$(BIN)/{tool}" in makefile, "CI does not run this hook"
    pytest.importorskip("pre_commit", reason="pre-commit comes with the dev extra")
    done = run(sys.executable, "-m", "pre_commit", "validate-config")
    assert done.returncode == 0, done.stdout


def test_the_contributing_page_names_the_command_that_ci_runs() -> None:
    assert "make test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "```bash\nmake test\n```" in text
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`make (\w+)`", text)) <= set(targets)


def test_the_contributing_page_names_files_and_lists_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {n for n in re.findall(r"`(?:python )?([\w./]+(?:/|\.(?:py|md|toml|txt)))`", text) if "NAME" not in n}
    roots = (ROOT, ROOT / "sae_geometry", ROOT / "sae_geometry" / "plots")
    assert {n for n in named if not any((root / n).exists() for root in roots)} == set()
    assert len(named) > 20
    lists = re.findall(r"`([A-Za-z_]+)`(?: and\s`(\w+)`)? in\s`([\w/.]+\.py)`", text)
    assert {n for first, second, _ in lists for n in (first, second) if n} == {
        "_HOME",
        "COMMANDS",
        "TABLES",
        "VERBS",
        "OneToOne",
        "LAYOUTS",
        "SAID",
        "WRITTEN",
        "pair_controls",
    }
    for *names, file in lists:
        source = next(root / file for root in roots if (root / file).exists()).read_text(encoding="utf-8")
        assert all(re.search(rf"^(def )?{name}\b", source, re.M) for name in names if name), (names, file)
