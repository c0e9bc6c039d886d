"""Tests that importing the package, loading a dictionary and asking for help import nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sae_geometry as sg

PACKAGE = Path(sg.__file__).parent


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*(f'module:{{m}}' for m in sys.modules), sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {line.removeprefix("module:") for line in result.stdout.splitlines() if line.startswith("module:")}


HEAVY = {
    "wandb", "huggingface_hub", "umap", "matplotlib", "numba", "torch", "pandas", "scipy", "triton", "sklearn", "dask",
    "distributed", "plotly",
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, set[str]]:
    """Return the imported modules after each step in one process, and the content of its initially empty folder."""
    home = tmp_path_factory.mktemp("home")
    script = (
        "import json, os, sys\nsteps = {}\nimport sae_geometry as sg\nsteps['import'] = list(sys.modules)\n"
        "sg.load('demo:local-narrow-seed0')\nsteps['load'] = list(sys.modules)\n"
        "sg.compare, sg.umap, sg.save\nsteps['folder'] = os.listdir()\n"
        "sg.seeds(['demo:local-narrow-seed0'] * 2, matching='mutual')\nsteps['seeds'] = list(sys.modules)\n"
        "print(json.dumps(steps))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=home, env=_env(home), capture_output=True, text=True
    )
    return {step: set(names) for step, names in json.loads(done.stdout).items()}


def test_importing_the_package_imports_nothing_heavy(stages):
    assert not HEAVY & stages["import"]


def test_loading_a_dictionary_imports_no_client_and_no_plots(stages):
    assert not {"wandb", "huggingface_hub", "umap", "matplotlib", "numba"} & stages["load"]
    assert "torch" in stages["load"]


def test_comparing_here_imports_nothing_of_dask(stages):
    assert not {"dask", "distributed", "tornado.tcpserver"} & stages["seeds"]


def test_importing_and_loading_make_no_folder(stages):
    assert stages["folder"] == set()


@pytest.mark.parametrize("arguments", [[], ["compare"], ["umap"], ["inspect"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom sae_geometry.cli import main\n"
        f"sys.argv = ['sae-geometry', *{arguments!r}, '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not HEAVY & _modules_after(code)


def _env(home: Path) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if k in {"PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}}
    return keep | {
        "HOME": str(home), "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": "/tmp"
    }  # fmt: skip
