"""Steps that resume: what is finished is stored on disk, and done again only where its runs or parameters changed.

Two things are stored, each under a key: *values* (arrays that cost a sweep or a matching) by the fingerprints of their
runs, their parameters and the package's version; *figures* by the same, and by the code that draws them. A figure also
counts as finished only while its files are, byte for byte, what was written.
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

VERSION = 1  # of what is kept


@dataclass(frozen=True)
class Made:
    """What a step gives.

    Attributes:
        figure: as drawn.
        values: our values by name.
        missing: why some are not available.
        details: what the picture shows, as data for its sidecar.
    """

    figure: Figure
    values: Mapping[str, Measured] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One figure, with the values that belong to it.

    Attributes:
        name: what `--only` takes.
        shows: one line.
        runs: everything it is made from.
        make: makes it.
        parameters: what else it depends on.
        missing: why it cannot be made at all; "" if it can.
    """

    name: str
    shows: str
    runs: tuple[Run, ...]
    make: Callable[[Bench], Made]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""


class Bench:
    """Where steps are made: the dictionaries, and what was made before."""

    def __init__(self, library: Library, kept: Path, records: Path, say: Callable[[str], None]) -> None:
        """Values are kept in `kept`, which analyses may share; records of finished figures in `records`."""
        self.library = library
        self.say = say
        self._kept, self._folder = kept, records

    def dictionary(self, run: Run) -> sg.Dictionary:
        """See `Library.get`."""
        return self.library.get(run)

    def kept(
        self,
        what: str,
        runs: Sequence[Run],
        make: Callable[[], Mapping[str, np.ndarray]],
        **parameters: Any,
    ) -> dict[str, np.ndarray]:
        """Arrays, made once for these runs and parameters.

        Args:
            what: their name.
            runs: what they are made from, in order.
            make: makes them; called only where they are not kept.
            parameters: what else they depend on.
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
        """What the record says of a finished step, if its files are still what was written."""
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
        """Record a step as done."""
        record = {
            "key": key,
            "files": {os.path.relpath(p, self._folder): _digest(p) for p in files},
            "values": {name: asdict(v) for name, v in made.values.items()},
            "missing": dict(made.missing),
        }
        self._write(self._record(step.name), lambda file: file.write(json.dumps(record, indent=1).encode()))

    def key(self, step: Step, code: str) -> str:
        """What a step depends on, in one word."""
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
    """What came of all steps: our values, what could not be made and why, and which figures could not."""

    values: dict[str, Measured]
    missing: dict[str, str]
    without_figure: tuple[str, ...]


def run_steps(
    steps: Sequence[Step], bench: Bench, stem: Callable[[str], Path], *, command: str, code: Path, seed: int = 0
) -> Outcome:
    """Make every step that is not finished; one that cannot be made does not stop the others.

    Args:
        steps: in order.
        bench: where they are made.
        stem: path of a step's figure, without suffix.
        command: for the sidecars; `--only` and the step's name are added.
        code: the folder of the analysis; a change there, or in what is shared, makes figures anew.
        seed: for the sidecars.
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
                bench.say(f"{step.name}: finished before, kept")
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
    """Of the Python files of an analysis and of what all share."""
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
