"""`sae-geometry match A B`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, command_line, print_json, say_error
from sae_geometry.cli.inputs import check_free, check_wandb, compute_on, load_all, say_plan
from sae_geometry.cli.lifecycle import UNDER, told_in_one_sentence
from sae_geometry.cli.outputs import keep_sweeps, log_to_wandb, print_saved


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("match")(match)


@told_in_one_sentence
def match(
    a: Annotated[str, typer.Argument(metavar="A", help="The first dictionary's address; NAME=ADDRESS sets its label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The second dictionary's address.")],
    thresholds: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold", metavar="T", help="For shared latents; may be repeated. [default: 0, 0.05, …, 0.95]"
        ),
    ] = None,
    max_gap: Annotated[
        float, typer.Option("--max-gap", metavar="X", help="Stop at this relative optimality gap.", show_default=False)
    ] = 0.0,
    time_budget: Annotated[
        float | None,
        typer.Option("--time-budget", metavar="SECONDS", help="Stop each matching after about so long, gap reported."),
    ] = None,
    latents: o.Latents = "alive",
    allow_mismatch: o.AllowMismatch = False,
    fail_under: Annotated[
        float | None, typer.Option("--fail-under", metavar="X", help="Exit 3 if the signed PW-MCC is below X.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Also write the record to DIR/match.json.")
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON on stdout.")] = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    resume: o.Resume = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    dask: o.OnDask = None,
    dask_load: o.DaskLoad = False,
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
) -> None:
    """Match two dictionaries one to one, optimally: PW-MCC signed and absolute, every pair, shared latents.

    The record's schema is sae_geometry/schemas/match.schema.json. Ctrl-C ends the matching at hand, its gap reported.
    """
    from sae_geometry.comparisons.match_report import match_report
    from sae_geometry.io.atomic_folder import fresh_folder
    from sae_geometry.kernels.ledger import entries
    from sae_geometry.matching.shared import THRESHOLDS
    from sae_geometry.pairwise.confounds import confound_audit
    from sae_geometry.results.store import software, to_json

    if out is not None or log_wandb is not None:
        check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    left, right = load_all([a, b], speaker, latents=latents, device=device, offline=offline)
    if dry_run:
        say_plan("match", [left, right], as_json)
        return
    compute_on(dask, device=device, load=[left, right] if dask_load else None, offline=offline)
    folder = keep_sweeps(out, "match", [left.name, right.name], resume=resume, speaker=speaker)
    provenance = {
        "command": command_line(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": software(),
        "device": str(left.device),
    }
    with speaker.bar() as progress:
        record = match_report(
            left, right, thresholds=thresholds or THRESHOLDS, max_gap=max_gap,
            time_budget=float("inf") if time_budget is None else time_budget,
            allow_mismatch=allow_mismatch, provenance=provenance, progress=progress,
        )  # fmt: skip
    speaker.say(str(confound_audit(left, right)), unless=as_json)
    record["provenance"]["sweeps"] = [asdict(entry) for entry in entries()]
    saved = out is not None or log_wandb is not None
    if saved:
        with fresh_folder(folder, overwrite) as fresh:
            (fresh / "match.json").write_text(to_json(record) + "\n", encoding="utf-8")
    if as_json:
        print_json(record)
    else:
        typer.echo(_in_words(record))
    if saved:
        print_saved(folder, speaker, as_json)
        log_to_wandb(folder, log_wandb, speaker, offline=offline, as_json=as_json)
    reached = record["pw_mcc"]["signed"]["value"]
    if fail_under is not None and not reached >= fail_under:
        say_error(f"the signed PW-MCC is {reached:.4f}, below --fail-under {fail_under}")
        raise typer.Exit(UNDER)


def _chance(record: dict[str, Any], name: str) -> str:
    """What the PW-MCC would be of random dictionaries, in words."""
    drawn = record["chance"]["one_to_one"]
    return "chance not drawn at this size" if drawn is None else f"chance {drawn[name]['covariance_matched']:.3f}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _in_words(record: dict[str, Any]) -> str:
    """The record without its lists."""
    inputs, made = record["inputs"], record["matchings"]
    lines = [
        f"{inputs['a']['name']} ({inputs['a']['n_latents']:,}) ↔ {inputs['b']['name']} ({inputs['b']['n_latents']:,})"
    ]
    for name in ("signed", "absolute"):
        found, certificate = record["pw_mcc"][name], made[f"decoder_{name}"]["certificate"]
        state = "optimal, proven" if certificate["certified"] else f"stopped: {certificate['stopped']}"
        lines.append(f"  PW-MCC {name:<9} {found['value']:.4f}  {found['n_pairs']:,} pairs; {state}, "
                     f"relative gap {certificate['relative_gap']:.1e}; {_chance(record, name)}")  # fmt: skip
        lines.append(f"    {found['formula']}")
    mmcs, chance = record["mmcs"], record["chance"]["covariance_matched"]
    ways = (("A→B", "a_to_b"), ("B→A", "b_to_a"))
    told = ", ".join(f"{arrow} {mmcs[way]:.4f} (chance {_or_dash(chance[way])})" for arrow, way in ways)
    lines.append(f"  MMCS            {told} (signed, double counting)")
    lines.append("  chance          random directions with the dictionaries' own mean and second moment")
    shared = record["shared"]
    if "missing" in shared:
        lines.append(f"  shared latents  not asked: {shared['missing']}")
    else:
        at = next(point for point in shared["curve"] if point["threshold"] == 0.7)
        lines.append(f"  shared latents  {at['both']:,} of {shared['n_pairs']:,} ({at['both_share']:.1%}) have decoder "
                     f"and encoder cosine > 0.7; {at['both_same_partner']:,} of them with one partner")  # fmt: skip
        lines.append(f"  same partner    {shared['same_partner']:,} ({shared['same_partner_share']:.1%}) by decoder "
                     "and by encoder, at any cosine")  # fmt: skip
    return "\n".join(lines + [f"  note: {caveat}" for caveat in record["caveats"]])
