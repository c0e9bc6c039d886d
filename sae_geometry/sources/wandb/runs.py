"""Functions that list the runs of a W&B project, find runs to compare, and download the checkpoint of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sae_geometry.io.formatting import counted
from sae_geometry.sources.address import Address, parse
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.cache import safe_path
from sae_geometry.sources.demo import demo_runs
from sae_geometry.sources.download import in_cache, locked
from sae_geometry.sources.errors import AddressError, SourceError
from sae_geometry.sources.http import RefusedError
from sae_geometry.sources.layouts.filenames import checkpoints_in_order, is_of_a_checkpoint, path_of, start_names
from sae_geometry.sources.local import bundle_files
from sae_geometry.sources.wandb import client
from sae_geometry.sources.wandb.artifacts import bundle_artifact, choose, fetch_all, sides_of
from sae_geometry.sources.wandb.client import folder_of
from sae_geometry.sources.wandb.run_record import (
    METRICS,
    RUN_RECORD_NAME,
    Kind,
    RunInfo,
    RunRecord,
    read_record,
    write_record,
)

By = Literal["ce", "l0", "alive"]

_OWN_CONFIG = "config.yaml"
_FIELDS: dict[By, str] = {"ce": "ce_increase", "l0": "l0", "alive": "alive"}


def bundle_wandb(address: Address, context: Context) -> Bundle:
    """Return the checkpoint of a run or artifact: the file at `#file`, or by default the last checkpoint of a run."""
    if ":" in address.place:
        return bundle_artifact(address, context)
    record, folder, names = fetch_run(address.place, context, file=address.path)
    spelled = f"wandb:{address.place}#{path_of(names)}".removesuffix("#")
    bundle = bundle_files(tuple(folder / safe_path(n) for n in names), spelled, f"{address.place}/{names[0]}")
    starts = [n for n in start_names(names[0]) if n in record.weights]
    missing = f"wandb:{address.place}#{starts[0]}" if starts and bundle.start is None else None
    bundle = replace(bundle, name=record.name or address.place.rpartition("/")[2], **record.of_bundle)
    return replace(bundle, metadata={**bundle.metadata, "start_not_fetched": missing}) if missing else bundle


def fetch_run(
    run: str, context: Context, *, file: str | None = None, every: bool = False
) -> tuple[RunRecord, Path, tuple[str, ...]]:
    """Download a checkpoint of a run to the cache unless it is there; return the record, folder and weights.

    `file` names the checkpoint, by default the last one; `every` selects all numbered checkpoints instead.
    """
    folder = folder_of(run)
    record = read_record(folder / RUN_RECORD_NAME)
    if record is not None and record.weights and (context.offline or record.state == "finished"):
        names = _wanted(record.weights, run, file, every)
        if in_cache(folder, (*names, *sides_of(names, record.sums)), record.sums, context, f"wandb:{run}"):
            return record, folder, names
    if context.offline:
        raise SourceError(f"wandb:{run}{f'#{file}' if file else ''} is not in the cache {folder}; leave out --offline")
    remote = {f.name: f for f in client.files(run) if f.name.isprintable()}  # Otherwise `safe_path` raises.
    known = {} if record is None else record.sums
    record = replace(client.run(run), weights=tuple(sorted(filter(is_of_a_checkpoint, remote))))
    names = _wanted(list(remote), run, file, every)
    remote = {n: f for n, f in remote.items() if n in names or n != _OWN_CONFIG}  # `record` has the configuration.
    record = replace(record, sums=fetch_all(remote, names, folder, known, context))
    with locked(folder / RUN_RECORD_NAME):
        write_record(record, folder / RUN_RECORD_NAME)
    return record, folder, names


def _wanted(names: Sequence[str], run: str, file: str | None, every: bool) -> tuple[str, ...]:
    ordered = checkpoints_in_order(names)
    if every:
        if not ordered:
            among = counted(len(names), "file")
            raise SourceError(f"wandb:{run} has {among}, but no checkpoints named samples_N.pt")
        return tuple(ordered)
    if file is None and ordered:
        return (ordered[-1],)
    return choose(names, run, file)


def runs(
    project: str,
    *,
    kind: Kind | None = None,
    layer: int | None = None,
    seed: int | None = None,
    state: str | None = None,
) -> list[RunInfo]:
    """Return the runs of a project that match all filters, sorted by kind, layer and L0.

    Args:
        project: "entity/project", with or without the prefix "wandb:", or "demo" for the demo dictionaries.
        kind, layer, seed, state: return only runs with these values.

    Raises:
        SourceError: the project does not exist, access is denied, or W&B does not respond.

    Example:
        >>> import sae_geometry as sg
        >>> sg.runs("sparsify/gpt2", kind="local", layer=6)[0].l0  # doctest: +SKIP
    """
    listed = demo_runs() if project in ("demo", "demo:") else _listed(project)
    wanted = {"kind": kind, "layer": layer, "seed": seed, "state": state}
    kept = [r for r in listed if all(v is None or getattr(r, k) == v for k, v in wanted.items())]
    return sorted(kept, key=lambda r: (r.kind or "~", -1 if r.layer is None else r.layer, r.l0 or 0.0, r.address))


def _listed(project: str) -> list[RunInfo]:
    path = project.removeprefix("wandb:").strip("/")
    if path.count("/") != 1 or not all(path.split("/")):
        raise AddressError(f"{project!r} is not a project: write entity/project, or demo")
    listed = [info for record in client.runs(path) for info in _infos(record)]
    if not listed:
        raise RefusedError(f"W&B shows no runs in {path}", 404)
    return listed


def similar_runs(run: str, among: Iterable[RunInfo], by: By = "ce") -> list[RunInfo]:
    """Return a run and the most similar runs of other kinds at its layer, as the end-to-end paper pairs its runs.

    Args:
        run: "entity/project/run", the run's address, or its id alone.
        among: runs of the project.
        by: "ce" (the increase in cross-entropy), "l0" or "alive".

    Returns:
        The run itself, then the finished run of each other kind with the closest metric, closest first.

    Raises:
        SourceError: the run is not in `among`, or lacks the metric.

    Example:
        >>> from sae_geometry.sources import RunInfo, similar_runs
        >>> def run(name, kind, l0):
        ...     return RunInfo(f"wandb:e/p/{name}", "", "finished", kind, None, 6, l0, None, None, None, 0)
        >>> among = [run("a", "local", 20.0), run("b", "e2e", 30.0), run("c", "e2e", 21.0)]
        >>> [r.address for r in similar_runs("a", among, by="l0")]
        ['wandb:e/p/a', 'wandb:e/p/c']
    """
    listed = list(among)
    wanted = run if run.count("/") == 0 else str(parse(run if run.startswith("wandb:") else f"wandb:{run}"))
    found = [r for r in listed if r.address == wanted or r.address.rpartition("/")[2] == wanted]
    if len(found) != 1:
        matched = "several" if found else "none"
        raise SourceError(f"{run!r} matches {matched} of {counted(len(listed), 'listed run')}: give one address")
    own, name = found[0], _FIELDS[by]
    value = getattr(own, name)
    if value is None:
        raise SourceError(f"{own.address} has no {name} in its summary; choose another metric with --by")
    others = [r for r in listed if r.kind not in (None, own.kind) and r.layer == own.layer and r.state == "finished"]
    usable = [r for r in others if getattr(r, name) is not None]
    nearest: dict[Kind | None, RunInfo] = {}
    for other in sorted(usable, key=lambda r: (abs(getattr(r, name) - value), r.address)):
        nearest.setdefault(other.kind, other)
    return [own, *nearest.values()]


def _infos(record: RunRecord) -> Iterable[RunInfo]:
    hooks = record.hooks or (None,)
    for hook in hooks:
        metrics: dict[str, Any] = {name: None if hook is None else record.metric(name, hook) for name in METRICS}
        metrics["alive"] = None if metrics["alive"] is None else int(metrics["alive"])
        address = f"wandb:{record.path}" + (f"::{hook}" if len(hooks) > 1 else "")
        layer = next((int(p) for p in (hook or "").split(".") if p.isdecimal() and len(p) < 10), None)
        yield RunInfo(address, record.name, record.state, record.kind, hook, layer, seed=record.seed, **metrics)
