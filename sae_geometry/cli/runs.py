"""The `sae-geometry runs` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import print_json, say
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned


def runs(
    project: Annotated[str, typer.Argument(metavar="ENTITY/PROJECT", help="Weights & Biases project, or demo.")],
    kind: Annotated[
        Literal["local", "e2e", "e2e+ds"] | None, typer.Option(help="Only runs trained with this kind of loss.")
    ] = None,
    layer: Annotated[int | None, typer.Option(metavar="N", help="Only SAEs at this layer.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Only runs of this seed.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only runs in this state: finished, running, …")
    ] = None,
    similar_to: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Only the run closest to RUN, by --by, of each other kind at RUN's layer."),
    ] = None,
    by: Annotated[
        Literal["ce", "l0", "alive"], typer.Option(help="Metric of --similar-to: CE increase, L0 or alive latents.")
    ] = "ce",
    as_json: o.AsJson = False,
) -> None:
    """List the runs of a project: kind, layer, L0, CE increase, alive latents, seed.

    Public projects need no key; for private projects, set WANDB_API_KEY or run `wandb login`.
    """
    import sae_geometry as sg

    found = sg.runs(project, layer=layer, seed=seed, state=state, kind=None if similar_to else kind)
    if similar_to is not None:
        found = [r for r in sg.similar_runs(similar_to, found, by=by) if kind in (None, r.kind)]
    if as_json:
        print_json([asdict(r) for r in found])
        return
    rows = [("run", "kind", "layer", "L0", "CE increase", "alive", "seed", "state")]
    rows += [
        (
            r.address, _or_dash(r.kind), _or_dash(r.layer), _or_dash(r.l0, ".1f"), _or_dash(r.ce_increase, ".3f"),
            _or_dash(r.alive, ","), _or_dash(r.seed), r.state,
        )
        for r in found
    ]  # fmt: skip
    say("\n".join(aligned([tuple(map(shown, row)) for row in rows])))


def _or_dash(value: Any, form: str = "") -> str:
    return "–" if value is None else format(value, form)
