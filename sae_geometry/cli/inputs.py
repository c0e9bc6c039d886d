"""What a command does before its answer: refuse what cannot be, load, say where to compute, foretell the cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from sae_geometry.cli.console import Speaker, print_json
from sae_geometry.cli.lifecycle import until_the_end
from sae_geometry.cli.options import Device

if TYPE_CHECKING:
    from sae_geometry.cost.estimate import Verb
    from sae_geometry.dictionary import Dictionary


def check_free(out: Path | None, overwrite: bool) -> None:
    """Refuse a folder that results must not go to before any work is done, not after."""
    from sae_geometry.io.atomic_folder import check_folder, check_writable

    if out is None:
        check_writable(Path.cwd())
    else:
        check_folder(out, overwrite)


def check_wandb(project: str | None, offline: bool) -> None:
    """Refuse what could not be logged before any work is done, if logging is asked for."""
    if project is not None:
        from sae_geometry.results.wandb_log import check_wandb as check

        check(project, offline=offline)


def load_all(
    addresses: list[str],
    speaker: Speaker,
    *,
    latents: Literal["alive", "all"],
    device: Device,
    offline: bool,
    drop_bad: bool = False,
) -> list[Dictionary]:
    """Load dictionaries, saying what each address was resolved to and how many latents it keeps."""
    import warnings

    from sae_geometry.sources import OrientationWarning, load

    where = pick_device(device)
    loaded = []
    for address in addresses:
        with warnings.catch_warnings(), speaker.bar() as progress:
            warnings.simplefilter("ignore", OrientationWarning)  # it is among the dictionary's notes
            d = load(
                address, latents, offline=offline, drop_bad=drop_bad, echo=speaker.resolved, progress=progress
            )  # fmt: skip
        speaker.note(f"{d.name}: {d.n_latents:,} × {d.d_in:,}, {d.alive.describe()}")
        for note in d.notes:
            speaker.note(f"{d.name}: {note}")
        loaded.append(d if where == "cpu" else d.to(where))
    return loaded


def pick_device(device: Device) -> str:
    """The torch device to compute on.

    Raises:
        ValueError: a device asked for that is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[device]:
        raise ValueError(f"--device {device} is not available here; use --device auto or cpu")
    return device


def compute_on(dask: str | None, *, device: Device, load: Sequence[Dictionary] | None, offline: bool) -> None:
    """From here to the end of the command, sweeps and pairs are sent to Dask; None changes nothing.

    Args:
        dask: where.
        device: workers keep to what was asked of this process.
        load: dictionaries that workers are to load from their addresses; None if they are to be sent.
        offline: they touch no network for it either.

    Raises:
        ValueError: something to load, and no Dask.
    """
    if dask is None:
        if load is not None:
            raise ValueError("--dask-load says how Dask workers get the runs: add --dask, or leave it out")
        return
    from sae_geometry.distributed import running_on

    until_the_end(running_on(dask, device=device, load=load or (), offline=offline))


def say_plan(
    verb: Verb,
    dictionaries: list[Dictionary],
    as_json: bool,
    *,
    workers: int | None = None,
    bandwidth: float = 1.25e9,
    **how: Any,
) -> None:
    """What a verb would cost, on stdout: what --dry-run prints in place of an answer.

    Args:
        workers: also what it would cost on so many Dask workers.
        bandwidth: bytes a second that the network carries to them.
        how: as in `estimate`.
    """
    from dataclasses import asdict

    from sae_geometry.cost.cluster_model import cluster_plan
    from sae_geometry.cost.estimate import estimate

    found, plan = estimate(dictionaries, verb, **how), None
    if workers is not None and not found.passes:
        raise ValueError(f"{verb} makes no sweeps to spread over workers; leave out --workers")
    if workers is not None:
        plan = cluster_plan(
            found.passes, dictionaries[0].d_in, n_dictionaries=len(dictionaries), workers=workers,
            rate=found.flops / 2 / found.seconds, bandwidth=bandwidth, whole_pairs=found.whole_pairs,
        )  # fmt: skip
    if as_json:
        said = {key: value for key, value in asdict(found).items() if key != "passes"}
        print_json(said | ({} if plan is None else {"cluster": asdict(plan)}))
    else:
        typer.echo(str(found) if plan is None else f"{found}\n{plan}")
