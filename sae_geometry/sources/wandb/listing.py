"""The runs of a Weights & Biases project as a table, and which of them a paper would pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sae_geometry.sources.address import parse
from sae_geometry.sources.errors import AddressError, SourceError
from sae_geometry.sources.http import RefusedError
from sae_geometry.sources.wandb.host import api_key
from sae_geometry.sources.wandb.run_record import Kind, RunRecord

By = Literal["ce", "l0", "alive"]

_FIELDS: dict[By, str] = {"ce": "ce_increase", "l0": "l0", "alive": "alive"}


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
    listed = [info for record in _records(path) for info in _infos(record)]
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


def _records(path: str) -> Iterable[RunRecord]:
    key = api_key()
    if key is None:
        from sae_geometry.sources.wandb.public_client import KeylessClient

        return KeylessClient().runs(path)
    from sae_geometry.sources.wandb.client import SignedInClient

    return SignedInClient(key).runs(path)


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
