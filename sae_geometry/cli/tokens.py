"""The `sae-geometry tokens` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared(without=("allow_mismatch", "dask", "dask_load", "dry_run"))
def tokens(
    run: o.Run,
    k: Annotated[
        int, typer.Option("--top", metavar="K", min=1, max=64, help="Tokens to list per latent and sign.")
    ] = 10,
    *,
    shared: o.Shared,
) -> None:
    """List the tokens that each latent promotes, by its decoder's direct effect on the logits.

    Without --unembed, list the tokens that come with the run or with --labels. Writes report.html, tokens.parquet,
    tokens.csv, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.sources.bundle import Context

    with question(shared._replace(unembed=None), "tokens", [run]) as work:
        context = Context(echo=work.speaker.note, progress=work.progress)
        unembedding = None if shared.unembed is None else sg.read_unembedding(shared.unembed, context)
        work.finish(sg.read_tokens(work.dictionaries[0], unembedding, k=k, progress=work.progress))
