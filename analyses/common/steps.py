"""Resumable steps. Finished work is stored on disk, and repeated only if its runs or parameters change.

*Values* (arrays that take a sweep or a matching) are stored under a hash of the fingerprints of their runs, their
parameters and the package's version. The hash of a *figure* also covers the code that draws it, and a figure counts as
finished only if its files have not changed since they were written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from matplotlib.figure import Figure

import sae_geometry as sg
from analyses.common.errors import UnavailableError
from analyses.common.figures import ROOT, write_figure
from analyses.common.library import Library
from analyses.common.published import Measured
from analyses.common.runs import Run

VERSION = 1  # version of the stored format


@dataclass(frozen=True)
class Made:
    """The result of a step.

    Attributes:
        figure: the figure.
        values: our values by name.
        missing: reasons why some values are not available, by name.
        details: data shown in the figure, for its sidecar.
    """

    figure: Figure
    values: Mapping[str, Measured] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One figure, with the values that belong to it.

    Attributes:
        name: its name for `--only`.
        shows: what it shows, in one line.
        runs: all runs that it depends on.
        make: function that makes it.
        parameters: everything else that it depends on.
        missing: the reason why it cannot be made; "" if it can.
    """

    name: str
    shows: str
    runs: tuple[Run, ...]
    make: Callable[[Bench], Made]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""


class Bench:
    """The dictionaries and stored work that steps need."""

    def __init__(self, library: Library, kept: Path, records: Path, say: Callable[[str], None]) -> None:
        """Store values in `kept`, which analyses may share, and records of finished figures in `records`."""
        self.library = library
        self.say = say
        self._kept, self._folder = kept, records

    def dictionary(self, run: Run) -> sg.Dictionary:
        """Return a run's dictionary; see `Library.get`."""
        return self.library.get(run)

    def kept(
        self,
        what: str,
        runs: Sequence[Run],
        make: Callable[[], Mapping[str, np.ndarray]],
        **parameters: Any,
    ) -> dict[str, np.ndarray]:
        """Return arrays, which are computed only once for the same runs and parameters.

        Args:
            what: their name.
            runs: the runs they depend on, in order.
            make: function that computes them, called only if they are not stored.
            parameters: everything else that they depend on.
        """
        key = self._key(what, runs, parameters)
        path = self._kept / f"{what}-{key[:20]}.npz"
        found = _read_arrays(path, key)
        if found is None:
            made = {name: np.asarray(value) for name, value in make().items()}
            stored: dict[str, Any] = {"key": np.array(key), **made}
            self._write(path, lambda file: np.savez_compressed(file, **stored))
            found = made
        return found

    def finished(self, step: Step, key: str) -> Made | None:
        """Return the recorded result of a finished step; None if there is none or its files have changed."""
        try:
            record = json.loads(self._record(step.name).read_text(encoding="utf-8"))
            if record["key"] != key:
                return None
            if any(_digest(self._folder / name) != digest for name, digest in record["files"].items()):
                return None
            values = {name: Measured(**v) for name, v in record["values"].items()}
            return Made(Figure(), values, record["missing"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def finish(self, step: Step, key: str, made: Made, files: Sequence[Path]) -> None:
        """Record a step as finished."""
        record = {
            "key": key,
            "files": {os.path.relpath(p, self._folder): _digest(p) for p in files},
            "values": {name: asdict(v) for name, v in made.values.items()},
            "missing": dict(made.missing),
        }
        self._write(self._record(step.name), lambda file: file.write(json.dumps(record, indent=1).encode()))

    def key(self, step: Step, code: str) -> str:
        """Return a hash of everything that a step depends on."""
        return self._key(step.name, step.runs, {**step.parameters, "code": code, "names": [r.name for r in step.runs]})

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _key(self, what: str, runs: Sequence[Run], parameters: Mapping[str, Any]) -> str:
        said = {
            "version": VERSION,
            "package": sg.__version__,
            "what": what,
            "latents": self.library.latents,
            "runs": [self.library.fingerprint(r) for r in runs],
            "parameters": parameters,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    @staticmethod
    def _write(path: Path, write: Callable[[Any], Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".aside-")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class Outcome:
    """The result of all steps: our values, the reasons for missing ones, and the figures that could not be made."""

    values: dict[str, Measured]
    missing: dict[str, str]
    without_figure: tuple[str, ...]


def run_steps(
    steps: Sequence[Step], bench: Bench, stem: Callable[[str], Path], *, command: str, code: Path, seed: int = 0
) -> Outcome:
    """Make every unfinished step. A step that cannot be made does not stop the others.

    Args:
        steps: the steps, in order.
        bench: the dictionaries and stored work.
        stem: function that returns the path of a step's figure, without suffix.
        command: command for the sidecars, to which `--only` and the step's name are added.
        code: the folder of the analysis; if code there or in `common` changes, figures are made again.
        seed: random seed, for the sidecars.
    """
    digest = code_digest(code)
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    failed = []
    for step in steps:
        try:
            if step.missing:
                raise UnavailableError(step.missing)
            key = bench.key(step, digest)
            made = bench.finished(step, key)
            if made is not None:
                bench.say(f"{step.name}: already finished")
            else:
                made = step.make(bench)
                sources = [bench.library.source(r) for r in {r.identity: r for r in step.runs}.values()]
                more = {"shows": step.shows, "parameters": dict(step.parameters), **made.details}
                again = f"{command} --only {step.name}"
                files = write_figure(made.figure, stem(step.name), sources, command=again, seed=seed, more=more)
                bench.finish(step, key, made, files)
                bench.say(f"{step.name}: wrote {stem(step.name).name}.png, .pdf and .json")
            values |= made.values
            missing |= made.missing
        except (UnavailableError, ValueError) as error:
            if os.environ.get("SAE_GEOMETRY_DEBUG") == "1":
                raise
            missing[step.name] = str(error)
            failed.append(step.name)
            bench.say(f"{step.name}: not available: {error}")
    return Outcome(values, missing, tuple(failed))


def code_digest(folder: Path) -> str:
    """Return a hash of the Python files of an analysis and of `common`."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), *(ROOT / "analyses" / "common").glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    return arrays if str(arrays.pop("key", "")) == key else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
