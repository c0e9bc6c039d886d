"""The runs of an analysis, read from its `runs.toml` (or `runs-demo.toml`, or a file of the user's)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses.common.errors import AnalysisError

# What a run may be said to measure, and how it is written on an axis.
METRICS = ("l0", "ce_increase", "alive")
_RUN_KEYS = {
    "address", "id", "name", "layer", "kind", "role", "hook", "mirrors", "seed", "width", "place", "stands_for",
    "verified", *METRICS,
}  # fmt: skip
_FILE_KEYS = {"title", "file", "demo", "note", "run"}


@dataclass(frozen=True)
class Run:
    """One run in one role.

    Attributes:
        address: what `sg.load` takes; "" where the weights are not published.
        name: short label in figures.
        role: what it is there for.
        kind: "local", "e2e", "e2e+ds", …; "" where it has none.
        place: the group it is drawn with ("layer 6", "stand-in for layer 6"); "" where it has none.
        layer, seed, width: as the file says; None where it does not.
        stands_for: the published width in whose place it is, if it is not a published run.
        id: the same for the same weights under another role or address; the address unless said.
        mirrors: where else the weights are.
        known: metrics that the file states, for sources that do not.
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
    mirrors: tuple[str, ...] = ()
    stands_for: int | None = None
    known: Mapping[str, float] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The same for the same weights."""
        return self.id or self.address or self.name


@dataclass(frozen=True)
class RunFile:
    """All runs of an analysis.

    Attributes:
        title: the model, for titles.
        demo: whether these stand in for the published runs, so that no value can be compared.
        note: what every reader of a figure must know.
        runs: in the order of the file.
    """

    title: str
    demo: bool
    note: str
    runs: tuple[Run, ...]

    def of(self, *roles: str) -> tuple[Run, ...]:
        """The runs in these roles, in the order of the file."""
        return tuple(r for r in self.runs if r.role in roles)

    def find(self, role: str, *, kind: str | None = None, layer: int | None = None) -> Run | None:
        """The first run in a role, of a kind and at a layer if given."""
        wanted = (r for r in self.of(role) if kind in (None, r.kind) and layer in (None, r.layer))
        return next(wanted, None)

    def distinct(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        """Each weight once, in its first role."""
        return tuple({r.identity: r for r in reversed(runs)}.values())[::-1]


def read_runs(path: Path) -> RunFile:
    """The runs of a TOML file: `title`, `demo`, `note`, and a `[[run]]` each.

    Raises:
        AnalysisError: no such file, no TOML, or a key, role or type that is not expected.
    """
    table = read_toml(path)
    stray = set(table) - _FILE_KEYS
    if stray or not isinstance(table.get("run"), list):
        raise AnalysisError(f"{path.name} holds {', '.join(sorted(_FILE_KEYS))}; {_odd(stray) or 'it has no [[run]]'}")
    return RunFile(
        str(table.get("title", path.stem)),
        bool(table.get("demo", False)),
        str(table.get("note", "")),
        tuple(_run(entry, f"run {at + 1} of {path.name}") for at, entry in enumerate(table["run"])),
    )


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table.

    Raises:
        AnalysisError: no such file, or no TOML.
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
        raise AnalysisError(f"{where} needs address and role; {_odd(stray) or 'one of them is missing'}")
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
        mirrors=tuple(entry.get("mirrors", ())),
        stands_for=entry.get("stands_for"),
        known={m: float(entry[m]) for m in METRICS if m in entry},
    )


def _odd(stray: set[str]) -> str:
    return f"it has {', '.join(sorted(stray))} besides" if stray else ""
