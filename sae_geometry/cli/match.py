"""`sae-geometry match A B`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import command_line, print_json, say, say_error
from sae_geometry.cli.lifecycle import UNDER, report_errors
from sae_geometry.cli.outputs import log_to_wandb, print_saved
from sae_geometry.cli.question import question
from sae_geometry.io.formatting import counted


@o.with_shared(without=("formats",))
@report_errors
def match(
    a: o.FirstRun,
    b: o.SecondRun,
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
    fail_under: Annotated[
        float | None, typer.Option("--fail-under", metavar="X", help="Exit 3 if the signed PW-MCC is below X.")
    ] = None,
    *,
    shared: o.Shared,
) -> None:
    """Match two dictionaries one to one, optimally: PW-MCC signed and absolute, every pair, shared latents.

    The record's schema is sae_geometry/schemas/match.schema.json. Ctrl-C ends the matching at hand, its gap reported.
    """
    from sae_geometry.comparisons.match_report import match_report
    from sae_geometry.cost.estimate import matching_bytes
    from sae_geometry.io.atomic_folder import fresh_folder
    from sae_geometry.kernels.ledger import entries
    from sae_geometry.matching.shared import THRESHOLDS
    from sae_geometry.pairwise.confounds import confound_audit
    from sae_geometry.results.store import software, to_json

    with question(shared, "match", [a, b]) as work:
        takes = matching_bytes(*(d.n_latents for d in work.dictionaries))
        work.speaker.note(f"matching takes about {takes / 1e9:.2g} GB above the inputs")
        provenance = {
            "command": command_line(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": software(),
            "device": str(work.dictionaries[0].device),
        }
        record = match_report(
            *work.dictionaries, thresholds=thresholds or THRESHOLDS, max_gap=max_gap,
            time_budget=float("inf") if time_budget is None else time_budget,
            allow_mismatch=shared.allow_mismatch, provenance=provenance, progress=work.progress,
        )  # fmt: skip
        work.end_bar()
        record["provenance"]["sweeps"] = [asdict(entry) for entry in entries()]
        saved = shared.out is not None or shared.log_wandb is not None
        if saved:
            with fresh_folder(work.folder, shared.overwrite) as fresh:
                (fresh / "match.json").write_text(to_json(record) + "\n", encoding="utf-8")
        if shared.as_json:
            print_json(record)
        else:
            say(f"{confound_audit(*work.dictionaries)}\n{_in_words(record)}")
        if saved:
            print_saved(work.folder, work.speaker, shared.as_json)
            log_to_wandb(
                work.folder, shared.log_wandb, work.speaker, offline=shared.offline, as_json=shared.as_json
            )  # fmt: skip
    reached = record["pw_mcc"]["signed"]["value"]
    if fail_under is not None and not reached >= fail_under:
        say_error(f"the signed PW-MCC is {reached:.4f}, below --fail-under {fail_under}")
        raise typer.Exit(UNDER)


def _in_words(record: dict[str, Any]) -> str:
    """Describe the record without its lists."""
    inputs, made = record["inputs"], record["matchings"]
    lines = [
        f"{inputs['a']['name']} ({inputs['a']['n_latents']:,}) ↔ {inputs['b']['name']} ({inputs['b']['n_latents']:,})"
    ]
    for name in ("signed", "absolute"):
        chance = record["chance"]["one_to_one"][name]["mean_similarity"]
        found, certificate = record["pw_mcc"][name], made[f"decoder_{name}"]["certificate"]
        state = "optimal, proven" if certificate["certified"] else f"stopped: {certificate['stopped']}"
        lines.append(f"  PW-MCC {name:<9} {found['value']:.4f}  {counted(found['n_pairs'], 'pair')}; {state}, "
                     f"relative gap {certificate['relative_gap']:.1e}; chance {chance:.3f}")  # fmt: skip
        lines.append(f"    {found['formula']}")
    mmcs, chance = record["mmcs"], record["chance"]["turned"]
    ways = (("A→B", "a_to_b"), ("B→A", "b_to_a"))
    told = ", ".join(f"{arrow} {mmcs[way]:.4f} (chance {chance[way]['mean_similarity']:.3f})" for arrow, way in ways)
    lines.append(f"  MMCS            {told} (signed, double counting)")
    lines.append("  chance          the same against B turned: its mean, second moment and inner cosines kept")
    found = ", ".join(f"{arrow} {record['significant'][way]['fraction_of_source']:.1%}" for arrow, way in ways)
    lines.append(f"  significant     {found} closer than its own dictionary and the other turned explain (FDR 5 %)")
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
