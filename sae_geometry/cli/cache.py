"""`sae-geometry cache`."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import print_json
from sae_geometry.cli.lifecycle import told_in_one_sentence


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cache")(cache)


@told_in_one_sentence
def cache(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One run, entity/project/run; all of them if left out.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the run, or everything, from the cache.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Show or clear the runs fetched from Weights & Biases.

    They lie in $SAE_GEOMETRY_CACHE, or the user's cache folder. Hugging Face files are in Hugging Face's own cache.
    """
    from sae_geometry.sources import cache_root, cached_runs, clear_cache
    from sae_geometry.sources.cache import partial_bytes

    if clear:
        freed = clear_cache(run)
        if as_json:
            print_json({"folder": str(cache_root()), "freed_bytes": freed})
        else:
            typer.echo(f"{freed:,} bytes freed in {cache_root()}")
        return
    wanted = None if run is None else f"wandb:{run.removeprefix('wandb:')}"
    held = [r for r in cached_runs() if wanted in (None, r.address)]
    if as_json:
        runs = [{"address": r.address, "folder": str(r.folder), "files": r.files, "bytes": r.n_bytes} for r in held]
        print_json({"folder": str(cache_root()), "runs": runs, "partial_bytes": partial_bytes()})
        return
    for r in held:
        typer.echo(f"{r.address}  {r.n_bytes:,} bytes  {', '.join(r.files)}")
    total, waiting = sum(r.n_bytes for r in held), partial_bytes()
    rest = f", and {waiting:,} bytes of unfinished downloads" if waiting else ""
    typer.echo(f"{len(held):,} runs, {total:,} bytes{rest} in {cache_root()}")
