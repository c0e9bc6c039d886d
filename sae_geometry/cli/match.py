"""The `sae-geometry match` command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import command_line
from sae_geometry.cli.lifecycle import require_at_least
from sae_geometry.cli.question import question


@o.with_shared()
def match(
    a: o.FirstRun,
    b: o.SecondRun,
    thresholds: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            metavar="T",
            help="Threshold for shared latents; can be repeated. [default: 0, 0.05, …, 0.95]",
        ),
    ] = None,
    max_gap: Annotated[
        float, typer.Option(metavar="X", help="Stop once the relative optimality gap is at most X.", show_default=False)
    ] = 0.0,
    time_budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop each matching after about this time and report its optimality gap."),
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(metavar="X", help="Exit with status 3 if the signed PW-MCC is below X.")
    ] = None,
    *,
    shared: o.Shared,
) -> None:
    """Match two dictionaries one to one, optimally: signed and absolute PW-MCC, every pair, shared latents.

    Writes report.html, match.json, matches.parquet, shared.csv, only-a.csv, only-b.csv, summary.json and figures/. The
    schema of match.json is sae_geometry/schemas/match.schema.json. Ctrl-C stops a matching and reports its gap.
    """
    import sae_geometry as sg
    from sae_geometry.cost.estimate import matching_bytes
    from sae_geometry.results.store import software

    with question(shared, "match", [a, b]) as work:
        takes = matching_bytes(*(d.n_latents for d in work.dictionaries))
        work.speaker.note(f"matching takes about {takes / 1e9:.2g} GB in addition to the inputs")
        provenance = {
            "command": command_line(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": software(),
            "device": str(work.dictionaries[0].device),
        }
        how = work.how | ({} if thresholds is None else {"thresholds": thresholds})
        result = sg.match(
            *work.dictionaries, max_gap=max_gap, time_budget=float("inf") if time_budget is None else time_budget,
            provenance=provenance, **how,
        )  # fmt: skip
        work.finish(result, record="match.json")
    require_at_least(fail_under, result.record["pw_mcc"]["signed"]["value"], "the signed PW-MCC")
