"""Tests of names that Python could not decode, and of streams that cannot print every character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import sae_geometry as sg
from sae_geometry.io.escaping import readable
from sae_geometry.results.store import to_json

ROOT = Path(sg.__file__).parents[1]


def test_undecoded_bytes_are_read_as_utf8_after_all():
    assert readable("名前 é".encode().decode("ascii", "surrogateescape")) == "名前 é"
    assert readable("plain") == "plain"
    assert readable(b"\xff".decode("ascii", "surrogateescape")) == "\ufffd"
    assert json.loads(to_json({"a": "名".encode().decode("ascii", "surrogateescape")})) == {"a": "名"}


def test_a_run_without_utf8(tmp_path):
    """Use file and folder names beyond ASCII that neither the locale nor stdout supports."""
    folder = tmp_path / "名前 é"
    folder.mkdir()
    for name in ("словарь", "other"):
        np.save(folder / f"{name}.npy", np.random.default_rng(len(name)).standard_normal((12, 3)))
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii",
        "WANDB_API_KEY": "marker-of-a-secret", "HF_TOKEN": "marker-of-a-secret",
    }  # fmt: skip
    command = [sys.executable, "-m", "sae_geometry", "compare", f"{folder}/словарь.npy", f"{folder}/other.npy"]
    made = subprocess.run(
        [*command, "--matching", "mutual", "--json", "--format", "svg", "-o", str(folder / "вых од")],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    kept = json.loads((folder / "вых од" / "summary.json").read_text(encoding="utf-8"))
    assert told == kept
    assert kept["inputs"]["a"]["name"] == "словарь"
    assert set(sg.read(folder / "вых од").tables["matches"]["run"]) == {"словарь", "other"}
    everything = [
        made.stdout,
        made.stderr,
        *(p.read_bytes().decode("latin-1") for p in folder.rglob("*") if p.is_file()),
    ]
    assert not any("marker-of-a-secret" in text for text in everything)
