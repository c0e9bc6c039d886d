"""Read the runs of an analysis from its `runs.toml`, its `runs-demo.toml` or a user's file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses.common.errors import AnalysisError

# The metrics that a runs file may state.
METRICS = ("l0", "ce_increase", "alive")
_RUN_KEYS = {
    "address", "id", "name", "layer", "kind", "role", "seed", "width", "place", "stands_for", *METRICS,
}  # fmt: skip
_FILE_KEYS = {"title", "file", "demo", "note", "run"}


@dataclass(frozen=True)
class Run:
    """One run in one role.

    Attributes:
        address: address for `sg.load`; "" if the weights are not published.
        name: short label in figures.
        role: its role in the analysis.
        kind: "local", "e2e", "e2e+ds", …; "" if it has none.
        place: the group it is drawn with ("layer 6", "stand-in for layer 6"); "" if it has none.
        layer, seed, width: as stated in the file; None if not stated.
        stands_for: the published width that it stands in for, if it is not a published run.
        id: identifies the weights, whatever the role or address; by default the address.
        known: metrics stated in the file, for sources that do not have them.
    """

    address: str
    name: str
    role: str
    kind: str = ""
    place: str = ""
    layer: int | None = None
    seed: int | None = None
    width: int | None = None
    id: str = ""
    stands_for: int | None = None
    known: Mapping[str, float] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """An identifier of the weights, whatever the role or address."""
        return self.id or self.address or self.name


@dataclass(frozen=True)
class RunFile:
    """All runs of an analysis.

    Attributes:
        title: the model, for titles.
        demo: whether these stand in for the published runs, so that no value can be compared.
        note: note for the readers of every figure.
        runs: the runs, in the order of the file.
    """

    title: str
    demo: bool
    note: str
    runs: tuple[Run, ...]

    def of(self, *roles: str) -> tuple[Run, ...]:
        """Return the runs in these roles, in the order of the file."""
        return tuple(r for r in self.runs if r.role in roles)

    def find(self, role: str, *, kind: str | None = None, layer: int | None = None) -> Run | None:
        """Return the first run in a role, of a given kind and layer; None if there is none."""
        wanted = (r for r in self.of(role) if kind in (None, r.kind) and layer in (None, r.layer))
        return next(wanted, None)

    def distinct(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        """Return the runs without repeated weights; each keeps its first role."""
        return tuple({r.identity: r for r in reversed(runs)}.values())[::-1]


def read_runs(path: Path) -> RunFile:
    """Return the runs of a TOML file with `title`, `demo`, `note`, and a `[[run]]` per run.

    Raises:
        AnalysisError: the file does not exist, is not TOML, or has an unexpected key, role or type.
    """
    table = read_toml(path)
    stray = set(table) - _FILE_KEYS
    if stray or not isinstance(table.get("run"), list):
        raise AnalysisError(f"{path.name} {_odd(stray, _FILE_KEYS) or 'has no [[run]]'}")
    return RunFile(
        str(table.get("title", path.stem)),
        bool(table.get("demo", False)),
        str(table.get("note", "")),
        tuple(_run(entry, f"run {at + 1} of {path.name}") for at, entry in enumerate(table["run"])),
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        AnalysisError: the file does not exist, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AnalysisError(f"there is no file {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AnalysisError(f"{path} is not TOML: {error}") from error


def _run(entry: Any, where: str) -> Run:
    if not isinstance(entry, dict):
        raise AnalysisError(f"{where} is not a table: write [[run]]")
    stray = set(entry) - _RUN_KEYS
    if stray or not isinstance(entry.get("role"), str) or not isinstance(entry.get("address"), str):
        raise AnalysisError(f"{where} {_odd(stray, _RUN_KEYS) or 'needs an address and a role'}")
    layer = entry.get("layer")
    address = entry["address"]
    return Run(
        address=address,
        name=str(
            entry.get("name") or f"{entry.get('kind', '')} {str(entry.get('id', address)).rpartition('/')[2]}".strip()
        ),
        role=entry["role"],
        kind=str(entry.get("kind", "")),
        place=str(entry.get("place") or ("" if layer is None else f"Layer {layer}")),
        layer=layer,
        seed=entry.get("seed"),
        width=entry.get("width"),
        id=str(entry.get("id", "")),
        stands_for=entry.get("stands_for"),
        known={m: float(entry[m]) for m in METRICS if m in entry},
    )


def _odd(stray: set[str], known: set[str]) -> str:
    return f"must not have {', '.join(sorted(stray))}; its keys are {', '.join(sorted(known))}" if stray else ""
