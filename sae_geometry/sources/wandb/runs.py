"""Runs of Weights & Biases: a project's as a table, which of them a paper would pair, and a run's checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from sae_geometry.sources.address import Address, parse
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.cache import run_folder, safe_path
from sae_geometry.sources.download import RemoteFile, fetch_file, locked
from sae_geometry.sources.errors import AddressError, SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.http import RefusedError, origin_of
from sae_geometry.sources.layouts.filenames import checkpoints_in_order, choose_weights, looks_like_weights
from sae_geometry.sources.wandb.host import api_key, base_url, credentials_for
from sae_geometry.sources.wandb.public_client import KeylessClient
from sae_geometry.sources.wandb.run_record import RUN_RECORD_NAME, Kind, RunRecord, read_record, write_record

By = Literal["ce", "l0", "alive"]

_FIELDS: dict[By, str] = {"ce": "ce_increase", "l0": "l0", "alive": "alive"}


@runtime_checkable
class RunClient(Protocol):
    """Whoever can say what a run holds."""

    def run(self, path: str) -> RunRecord: ...

    def runs(self, path: str) -> Iterable[RunRecord]: ...

    def files(self, path: str) -> list[RemoteFile]: ...


@dataclass(frozen=True)
class FetchedRun:
    """A run's files on disk."""

    record: RunRecord
    folder: Path
    weights: tuple[str, ...]


def client() -> RunClient:
    """The wandb client where a key is configured, else plain HTTPS."""
    key = api_key()
    if key is None:
        return KeylessClient()
    from sae_geometry.sources.wandb.client import SignedInClient

    return SignedInClient(key)


def bundle_wandb(address: Address, context: Context) -> Bundle:
    """The checkpoint of a run: `#file`, or the one with the largest number.

    Raises:
        SourceError: no such run or file, no access, or no whole copy of it.
    """
    fetched = fetch_run(address.place, context, file=address.path)
    name = fetched.weights[-1]
    record = fetched.record
    return Bundle(
        (fetched.folder / safe_path(name),),
        address=f"wandb:{address.place}#{name}",
        name=record.name or address.place.rpartition("/")[2],
        where=f"{address.place}/{name}",
        config=record.config,
        alive_ids=record.alive_ids,
        alive_source=record.alive_source,
        metadata=record.metadata,
    )


def fetch_run(run: str, context: Context, *, file: str | None = None, every: bool = False) -> FetchedRun:
    """Bring a run's checkpoint (or every one) and its record into the cache, if they are not there.

    Args:
        run: "entity/project/run".
        context: offline or not, and whom to tell.
        file: one file by name; by default the last checkpoint.
        every: all checkpoints named by number.

    Raises:
        SourceError: as `bundle_wandb`.
    """
    folder = run_folder(origin_of(base_url()).partition("://")[2], run)
    record = read_record(folder / RUN_RECORD_NAME)
    if record is not None and record.weights and (context.offline or record.state == "finished"):
        names = _wanted(record.weights, run, file, every)
        if all((folder / safe_path(n)).is_file() for n in names):
            return FetchedRun(record, folder, names)
    if context.offline:
        raise SourceError(f"wandb:{run}{f'#{file}' if file else ''} is not in the cache {folder}; leave out --offline")
    asked = client()
    remote = {f.name: f for f in asked.files(run)}
    record = replace(asked.run(run), weights=tuple(sorted(n for n in remote if looks_like_weights(n))))
    names = _wanted(list(remote), run, file, every)
    credentials = credentials_for(api_key())
    for name in names:
        target = folder / safe_path(name)
        context.say(f"fetching {name} from {origin_of(remote[name].url)}")
        fetch_file(remote[name], target, credentials=credentials, check=open_tensors, progress=context.progress)
    _keep(record, folder / RUN_RECORD_NAME)
    return FetchedRun(record, folder, names)


def _keep(record: RunRecord, path: Path) -> None:
    with locked(path):
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(write_record(record), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _wanted(names: Sequence[str], run: str, file: str | None, every: bool) -> tuple[str, ...]:
    ordered = checkpoints_in_order(names)
    if file is not None:
        if file not in names:
            near = ordered[-3:] or [n for n in names if looks_like_weights(n)][:3]
            raise RefusedError(f"wandb:{run} has no file {file!r}{'; it has ' + ', '.join(near) if near else ''}", 404)
        return (file,)
    if every:
        if not ordered:
            raise SourceError(f"wandb:{run} has no checkpoints named samples_N.pt among its {len(names):,} files")
        return tuple(ordered)
    return (ordered[-1],) if ordered else choose_weights(names, f"wandb:{run}")


@dataclass(frozen=True)
class RunInfo:
    """One SAE of one run.

    Attributes:
        address: "wandb:entity/project/run", with ::hook where the run has several.
        name: the name people gave the run.
        state: "finished", "running", "crashed", …
        kind: what its loss rewards: "local", "e2e" or "e2e+ds"; None when its configuration does not tell.
        hook_point: where the SAE is.
        layer: the number in the hook point.
        l0: mean number of latents that fire on a token.
        ce_increase: cross-entropy loss with the SAE minus without, in nats.
        explained_variance: share of the activations' variance.
        alive: latents that fire.
        seed: of its training.
    """

    address: str
    name: str
    state: str
    kind: Kind | None
    hook_point: str | None
    layer: int | None
    l0: float | None
    ce_increase: float | None
    explained_variance: float | None
    alive: int | None
    seed: int | None


def runs(
    project: str,
    *,
    kind: Kind | None = None,
    layer: int | None = None,
    seed: int | None = None,
    state: str | None = None,
) -> list[RunInfo]:
    """The runs of a project, filtered, sorted by kind, layer and L0.

    Args:
        project: "entity/project", with or without "wandb:" in front.
        kind, layer, seed, state: keep only the runs that have it.

    Raises:
        SourceError: no such project, no access, no answer.

    Example:
        >>> import sae_geometry as sg
        >>> sg.runs("sparsify/gpt2", kind="local", layer=6)[0].l0  # doctest: +SKIP
    """
    path = project.removeprefix("wandb:").strip("/")
    if path.count("/") != 1 or not all(path.split("/")):
        raise AddressError(f"{project!r} is not a project: write entity/project")
    listed = [info for record in client().runs(path) for info in _infos(record)]
    if not listed:
        raise RefusedError(f"W&B shows no runs in {path}", 404)
    wanted = {"kind": kind, "layer": layer, "seed": seed, "state": state}
    kept = [r for r in listed if all(v is None or getattr(r, k) == v for k, v in wanted.items())]
    return sorted(kept, key=lambda r: (r.kind or "~", -1 if r.layer is None else r.layer, r.l0 or 0.0, r.address))


def similar_runs(run: str, among: Iterable[RunInfo], by: By = "ce") -> list[RunInfo]:
    """The run of each other kind, at the same layer, whose metric is nearest: how the paper pairs its runs.

    Args:
        run: "entity/project/run", its address, or the run's id alone.
        among: runs of the project.
        by: "ce" (increase of the loss), "l0" or "alive".

    Returns:
        The run itself, then one finished run of each other kind, nearest first.

    Raises:
        SourceError: the run is not among them, or lacks the metric.

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
        raise SourceError(
            f"{run!r} is {'not' if not found else 'more than once'} among the {len(listed):,} runs listed"
        )
    own, name = found[0], _FIELDS[by]
    value = getattr(own, name)
    if value is None:
        raise SourceError(f"{own.address} has no {name} in its summary; use another --by")
    nearest: dict[Kind, tuple[float, RunInfo]] = {}
    for other in listed:
        theirs = getattr(other, name)
        usable = other.kind not in (None, own.kind) and other.layer == own.layer and other.state == "finished"
        if not usable or theirs is None or other.kind is None:
            continue
        gap = abs(theirs - value)
        if other.kind not in nearest or (gap, other.address) < (nearest[other.kind][0], nearest[other.kind][1].address):
            nearest[other.kind] = (gap, other)
    return [own, *(r for _, r in sorted(nearest.values(), key=lambda pair: (pair[0], pair[1].address)))]


def _infos(record: RunRecord) -> Iterable[RunInfo]:
    hooks = record.hooks or (None,)
    for hook in hooks:
        alive = None if hook is None else record.metric("alive", hook)
        parts = (hook or "").split(".")
        yield RunInfo(
            f"wandb:{record.path}" + (f"::{hook}" if len(hooks) > 1 else ""),
            record.name,
            record.state,
            record.kind,
            hook,
            next((int(p) for p in parts if p.isdigit()), None),
            None if hook is None else record.metric("l0", hook),
            None if hook is None else record.metric("ce_increase", hook),
            None if hook is None else record.metric("explained_variance", hook),
            None if alive is None else int(alive),
            record.seed,
        )
