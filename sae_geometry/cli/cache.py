"""The `sae-geometry cache` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import print_json, say
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, ends

_LISTED = 40  # maximum number of files to list


def cache(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Only this run, as ENTITY/PROJECT/RUN. [default: all runs]")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the files of RUN, or all files without RUN.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --clear: do not ask for confirmation.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Show or clear the runs fetched from Weights & Biases.

    W&B files are in $SAE_GEOMETRY_CACHE or, if that is not set, in the user's cache folder. Hugging Face files are in
    Hugging Face's own cache. --clear first lists the files, and removes only those that sae-geometry wrote.
    """
    from sae_geometry.sources import cache_root, cached_runs
    from sae_geometry.sources.cache import partial_bytes

    if clear:
        _clear(run, yes=yes, as_json=as_json)
        return
    wanted = None if run is None else f"wandb:{run.removeprefix('wandb:')}"
    held = [r for r in cached_runs() if wanted in (None, r.address)]
    if as_json:
        runs = [{"address": r.address, "folder": str(r.folder), "files": r.files, "bytes": r.n_bytes} for r in held]
        print_json({"folder": str(cache_root()), "runs": runs, "partial_bytes": partial_bytes()})
        return
    for r in held:
        say(f"{shown(r.address)}  {r.n_bytes:,} bytes  {', '.join(map(shown, r.files))}")
    total, waiting = sum(r.n_bytes for r in held), partial_bytes()
    rest = f", and {waiting:,} bytes of unfinished downloads" if waiting else ""
    say(f"{counted(len(held), 'run')}, {counted(total, 'byte')}{rest} in {shown(cache_root())}")


def _clear(run: str | None, *, yes: bool, as_json: bool) -> None:
    from sae_geometry.sources import cache_root, clear_cache
    from sae_geometry.sources.cache import to_clear

    going = to_clear(run)
    names = [shown(path.relative_to(cache_root())) for path in going]
    for name in ends(names, _LISTED):
        say(name, err=True)
    if going and not yes and sys.stdin.isatty():
        typer.confirm(f"Remove {counted(len(going), 'file')} from {shown(cache_root())}?", abort=True, err=True)
    freed = clear_cache(run)
    if as_json:
        print_json({"folder": str(cache_root()), "removed": names, "freed_bytes": freed})
    else:
        say(f"{counted(freed, 'byte')} freed in {shown(cache_root())}")
