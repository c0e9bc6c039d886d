"""Tests of the oldest allowed versions, as constraints: `python tests/test_floors.py` writes them.

`make test-oldest` installs them and runs every test; CI's constraints must lie in the same ranges.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
OLDEST = ROOT / "constraints-oldest.txt"

# The newest releases of these deprecate what the oldest allowed version of a dependency still calls.
COMPANIONS = {"click<8.5": "typer 0.20", "pyparsing<3.3": "matplotlib 3.10"}

HEAD = """\
# The oldest version of every dependency and extra that pyproject.toml allows: `python tests/test_floors.py` writes it,
# `make test-oldest` tries those of `.[dev]`.
"""


def requirements() -> list[Requirement]:
    """Return every dependency and extra of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in extra)]]


def floors() -> dict[str, str]:
    """Return the lowest floor of each package, by name."""
    lowest: dict[str, str] = {}
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        [floor] = [part.version for part in requirement.specifier if part.operator == ">="]
        lowest[name] = min(floor, lowest.get(name, floor), key=Version)
    return dict(sorted(lowest.items()))


def oldest_text() -> str:
    """Return the expected text of constraints-oldest.txt."""
    lines = [f"{name}=={floor}" for name, floor in floors().items()]
    lines += ["# What these were made to work with."]
    lines += [f"{companion}  # {why}" for companion, why in COMPANIONS.items()]
    return HEAD + "\n".join(lines) + "\n"


def constraints() -> dict[str, Version]:
    """Return the versions that CI installs, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


def test_the_oldest_are_the_floors_of_the_ranges() -> None:
    assert OLDEST.read_text(encoding="utf-8") == oldest_text()


def test_every_range_has_one_floor_and_no_ceiling() -> None:
    for requirement in requirements():
        assert [part.operator for part in requirement.specifier] == [">="], f"{requirement}: a floor, and no ceiling"


def test_what_ci_installs_is_within_the_ranges() -> None:
    exact = constraints()
    needs_a_gpu = {"cuml-cu13", "dask-cuda"}
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name not in needs_a_gpu:
            assert exact[name] in requirement.specifier, f"{requirement}: {exact[name]} in constraints.txt"


def test_ci_and_the_floors_are_two_ends() -> None:
    exact = constraints()
    same = {name for name, floor in floors().items() if name in exact and Version(floor) == exact[name]}
    assert same <= {"wandb"}, "these ranges have only one end"


if __name__ == "__main__":
    OLDEST.write_text(oldest_text(), encoding="utf-8")
    sys.stdout.write(f"wrote {OLDEST.name}\n")
