"""Optional logging of results to Weights & Biases, always as a new run and never to the run of a dictionary.

The saved folder is logged, so that server and disk agree and no results are lost if logging fails. wandb is imported
only here and on request; its waiting times are limited, and every failure is reported in one sentence.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from sae_geometry.io.parquet import read_table
from sae_geometry.io.redaction import without_secrets
from sae_geometry.io.results_folder import SUMMARY, has, listed_files, read_json
from sae_geometry.kernels.settings import current
from sae_geometry.sources.http import limits
from sae_geometry.sources.wandb.client import api_key, base_url, check_signed_in

N_ROWS = 1000
ARTIFACT_TYPE = "sae-geometry-results"
# These keys hold provenance; the other keys of a record hold numbers.
_PROVENANCE = (
    "kind", "schema", "schema_version", "command", "created", "software", "inputs", "provenance", "parameters",
    "params", "limits", "similarity", "matching", "one_to_one_matching", "threshold", "partner", "false_discovery_rate",
    "runs", "kinds", "layers", "seeds", "confounds", "caveats", "sweep", "sweeps", "onto", "groups",
    "hook_points", "reproducible_with",
)  # fmt: skip
# Lists of numbers, with the key of the list that labels them. Without that list, the labels are 1, 2, …
_COUNTED = {
    "explained": "n_nearest",
    "explained_by_chance": "n_nearest",
    "overlap": "ranks",
    "overlap_by_chance": "ranks",
    "overlap_isotropic": "ranks",
}
# These keys identify the entries of a list.
_LABELS = (("direction", "matching"), ("a", "b"), ("checkpoint",))
# maximum number of runs for which pairwise matrices are logged; pairs.parquet has all pairs
_MOST_RUNS = 12
# Prefixes of the keys of pairwise matrices. Recurrence is excluded: its shape is runs × counts.
_PAIRWISE = ("mmcs", "significant", "beyond", "shared", "same_partner", "paired")


class LoggingError(ValueError):
    """Raised if results cannot be logged; the results remain on disk."""


def log_wandb(folder: str | os.PathLike[str], project: str, *, name: str | None = None, offline: bool = False) -> str:
    """Log a results folder to Weights & Biases as a new run.

    The run gets the numbers as flat summary metrics, named with similarity, direction and matching
    (`decoder_cosine/a_to_b/nearest/mean_similarity_of_matched`); their provenance as its config; PNG figures as images;
    the first thousand rows of every table; and the result files, and no others, as an artifact. The source runs of the
    dictionaries are named in the config and never written to.

    Args:
        folder: folder written by `save` or by a command with `-o`.
        project: "entity/project".
        name: name of the new run; the kind of the result and its inputs' names if None.
        offline: record locally, for `wandb sync`, as with WANDB_MODE=offline.

    Returns:
        The address of the run, or the folder for `wandb sync`.

    Raises:
        FileNotFoundError: not a results folder.
        LoggingError: a project not named entity/project, no sign-in, or a server that refuses or does not respond.

    Example:
        >>> import sae_geometry as sg
        >>> sg.log_wandb("results", "x")
        Traceback (most recent call last):
        sae_geometry.results.wandb_log.LoggingError: a W&B project is named entity/project, like my-team/seeds; got 'x'
    """
    root = Path(folder)
    offline = _is_offline(offline)
    check_wandb(project, offline=offline)
    if not has(root, SUMMARY):
        raise FileNotFoundError(f"{root} is not a results folder: it has no {SUMMARY}")
    record = read_json(root, SUMMARY)
    entity, _, title = project.partition("/")
    try:
        # The client's records are removed after sending; offline they stay in its default folder.
        place = nullcontext(None) if offline else tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        with _quiet_and_bounded(), place as home:
            return _log(root, record, (entity, title), name=name, home=home)
    except LoggingError:
        raise
    except Exception as error:  # The client raises many types of exceptions, including validation errors.
        raise LoggingError(
            f"could not log to W&B {project} at {base_url()} ({_short(error)}); the results are in {root}; "
            "to retry, call sae_geometry.log_wandb(folder, project); with offline=True, it records for `wandb sync`"
        ) from error


def check_wandb(project: str, *, offline: bool = False) -> None:
    """Raise LoggingError, before any computation, if results could not be logged.

    Raises:
        LoggingError: a project not named entity/project or, unless offline, no key, a refused key, or no response.
    """
    if not re.fullmatch(r"[\w.-]+/[^/\\#?%:\s]{1,128}", project):
        raise LoggingError(f"a W&B project is named entity/project, like my-team/seeds; got {project!r}")
    if _mode() == "disabled":
        raise LoggingError("WANDB_MODE=disabled, so nothing would be logged; unset it, or do not request logging")
    if _is_offline(offline):
        return
    try:
        check_signed_in()
    except (ValueError, OSError) as error:
        said = str(error).removesuffix("; try again later, or use --offline for cached files")
        raise LoggingError(f"{said}; set WANDB_MODE=offline to record the results here, for `wandb sync`") from None


def metrics(record: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the numbers of a record as flat metrics, each named with its similarity, direction and matching.

    Args:
        record: contents of summary.json.
    """
    numbers = _numbers({k: v for k, v in record.items() if k not in _PROVENANCE}, ())
    return {"/".join(path): value for path, value in numbers} | _pair_metrics(record)


def _log(root: Path, record: Mapping[str, Any], project: tuple[str, str], *, name: str | None, home: str | None) -> str:
    import wandb

    online = home is not None
    silence = limits().silence
    settings = wandb.Settings(
        base_url=base_url(), api_key=api_key() if online else None, program="sae-geometry", host="",
        silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_save_requirements=False,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, init_timeout=30 + 3 * silence,
        finish_timeout=10 * silence, finish_timeout_raises=True,
        **_bounds("graphql", silence), **_bounds("file_stream", silence), **_bounds("file_transfer", 10 * silence),
    )  # fmt: skip
    entity, title = project
    run = wandb.init(
        entity=entity, project=title, name=name or _name(record), job_type="sae-geometry",
        dir=home or os.environ.get("WANDB_DIR") or os.getcwd(),
        config={k: record[k] for k in _PROVENANCE if k in record}, settings=settings,
        mode="online" if online else "offline",
        id=secrets.token_hex(8), resume="never", reinit="create_new",  # Ignore active runs and WANDB_RUN_ID.
    )  # fmt: skip
    try:
        run.summary.update(metrics(record))
        pictures = [file for file in listed_files(root) if re.fullmatch(r"figures/[^/]+\.png", file)]
        seen: dict[str, Any] = {file.removesuffix(".png"): wandb.Image(str(root / file)) for file in pictures}
        seen |= {f"tables/{key}": wandb.Table(columns=[str(c) for c in t], data=_rows(t)) for key, t in _tables(root)}
        if seen:
            run.log(seen)
        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", root.resolve().name)[:100] or "results", ARTIFACT_TYPE)
        for file in listed_files(root):
            artifact.add_file(str(root / file), name=file)
        logged = run.log_artifact(artifact)
        if online:
            logged.wait(timeout=int(20 * silence) + 1)
        where = str(run.url) if online else str(Path(run.settings.sync_dir).resolve())
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
    return where


def _bounds(part: str, seconds: float) -> dict[str, Any]:
    """Return the settings that limit retries and waits of one part of the client, with this timeout."""
    limit = limits()
    return {
        f"x_{part}_retry_max": limit.tries - 1,
        f"x_{part}_timeout_seconds": seconds,
        f"x_{part}_retry_wait_min_seconds": limit.pause,
        f"x_{part}_retry_wait_max_seconds": limit.longest_pause,
    }


@contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """Silence the client and limit its waits through environment variables, which it reads when it first starts."""
    wanted = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    wanted |= {f"WANDB_{key.upper()}": str(value) for key, value in _bounds("graphql", limits().silence).items()}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _is_offline(asked: bool) -> bool:
    return asked or current().offline or _mode() == "offline"


def _mode() -> str:
    mode = os.environ.get("WANDB_MODE", "online")
    return "offline" if mode == "dryrun" else mode


def _name(record: Mapping[str, Any]) -> str:
    inputs = record.get("inputs", [])
    each = list(inputs.values()) if isinstance(inputs, dict) else inputs
    names = [str(i.get("name")) for i in each if isinstance(i, dict)] or [str(r) for r in record.get("runs", [])]
    return f"{record.get('kind', 'results')}: {', '.join(names)}"[:120]


def _tables(root: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    for file in listed_files(root):
        if re.fullmatch(r"[^/]+\.parquet", file):
            yield file.removesuffix(".parquet"), read_table(root, file).head(N_ROWS)


def _rows(table: pd.DataFrame) -> list[Any]:
    """Return rows of plain values: missing values as None, arrays as JSON."""
    return [[_plain(value) for value in row] for row in table.itertuples(index=False)]


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return None if pd.isna(value) else value


def _numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | float]]:
    if isinstance(value, bool):
        yield path, int(value)
    elif isinstance(value, int | float):
        if math.isfinite(value):
            yield path, value
    elif isinstance(value, Mapping):
        here = _named(value, path)
        for key, item in value.items():
            labels = value.get(_COUNTED[key]) if key in _COUNTED else None
            if key in _COUNTED and isinstance(item, list):
                item = dict(zip(map(str, labels or range(1, len(item) + 1)), item, strict=False))
            yield from _numbers(item, (*here, _slug(str(key))))
    elif isinstance(value, list):
        for item in value:  # Only labeled lists become metrics; the artifact has all lists.
            said = next((k for k in _LABELS if isinstance(item, Mapping) and set(k) <= item.keys()), None)
            if said is not None:
                words = [_slug(str(item[k])) for k in said]
                yield from _numbers(dict(item), (*path, *(["_to_".join(words)] if said == ("a", "b") else words)))


def _named(value: Mapping[str, Any], path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the metric path of a record; for one direction of a matching: similarity, direction, matching."""
    if not {"matching", "similarity", "n_matched"} <= value.keys():
        return path
    where = tuple(part for part in path if part != "one_to_one")
    return (_slug(str(value["similarity"])), *where, _slug(str(value["matching"])))


def _pair_metrics(record: Mapping[str, Any]) -> dict[str, int | float]:
    """Return one metric per ordered pair of runs for every pairwise matrix."""
    runs = record.get("runs")
    if not (isinstance(runs, list) and all(isinstance(r, str) for r in runs) and len(runs) <= _MOST_RUNS):
        return {}
    found: dict[str, int | float] = {}
    similarity = _slug(str(record.get("similarity", "similarity")))
    one_to_one = str(record.get("one_to_one_matching", "one_to_one"))
    for key, table in record.items():
        if not (key.startswith(_PAIRWISE) and isinstance(table, list) and len(table) == len(runs)):
            continue
        if not all(isinstance(row, list) and len(row) == len(runs) for row in table):
            continue
        nearest = key.startswith(("mmcs", "significant", "beyond")) or key == "shared_by_chance_at_most"
        matching = "nearest" if nearest else one_to_one
        for i, a in enumerate(runs):
            for j, b in enumerate(runs):
                if i != j and isinstance(table[i][j], int | float):
                    found[f"{similarity}/{_slug(a)}_to_{_slug(b)}/{matching}/{_slug(key)}"] = table[i][j]
    return found


def _slug(text: str) -> str:
    """Return a name with only letters, digits, underscores and hyphens, which the server accepts unquoted."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")


def _short(error: Exception) -> str:
    return " ".join(without_secrets(str(error)).split())[:200] or type(error).__name__
