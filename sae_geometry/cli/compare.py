"""The `sae-geometry compare` command."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.inputs import map_of
from sae_geometry.cli.lifecycle import require_at_least
from sae_geometry.cli.question import question


@o.with_shared()
def compare(
    a: o.FirstRun,
    b: o.SecondRun,
    matching: Annotated[
        Literal["nearest", "mutual", "greedy", "optimal"],
        typer.Option(help="How to pair latents; with nearest, several latents may share a partner."),
    ] = "nearest",
    on: o.On = "decoder",
    threshold: o.Threshold = 0.7,
    absolute: o.Absolute = False,
    min_similarity: Annotated[
        float | None, typer.Option(metavar="X", help="With --matching optimal: minimum similarity of a pair.")
    ] = None,
    min_margin: Annotated[
        float | None,
        typer.Option(metavar="X", help="Minimum margin of a pair over the best other candidate of either latent."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="DICT",
            help="Also compare A and B with this dictionary, which should share nothing with them (from a randomized "
            "model, step 0 or another layer).",
        ),
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of random turns of B for the null expectation of one-to-one matching. [default: 3 up to 4,096 "
            "latents per side, else 1]",
        ),
    ] = None,
    pairing: Annotated[
        Literal["cosine", "index"],
        typer.Option(help="Pair latents by cosine, or by id (models of a crosscoder, fine-tuning)."),
    ] = "cosine",
    cuts: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="With --pairing index: a latent is only in A if its relative decoder norm is at most LOW, and only in "
            "B if it is at least HIGH. [default: 0.1 0.9]",
        ),
    ] = None,
    map_file: o.Map = None,
    map_side: o.MapSide = None,
    fail_under: Annotated[
        float | None, typer.Option(metavar="X", help="Exit with status 3 if a direction's mean similarity is below X.")
    ] = None,
    *,
    shared: o.Shared,
) -> None:
    """Find every latent's partner in the other dictionary, in both directions, with and without double counting.

    Writes report.html, matches.parquet (by_index.parquet with --pairing index), shared.csv, only-a.csv, only-b.csv,
    summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.comparisons.by_index import CUTS

    by_cosine = {
        "--matching": matching != "nearest", "--on": on != "decoder", "--absolute": absolute,
        "--min-similarity": min_similarity is not None, "--min-margin": min_margin is not None,
        "--control": control is not None, "--turns": turns is not None,
    }  # fmt: skip
    idle = ", ".join(option for option, given in by_cosine.items() if given)
    if pairing == "index" and idle:
        raise ValueError(f"--pairing index compares decoder directions of latents with the same id: leave out {idle}")
    if pairing != "index" and cuts is not None:
        raise ValueError("--cuts applies only to --pairing index: add --pairing index, or leave out --cuts")
    with question(shared, "compare", [a, b] if control is None else [a, b, control], matching=matching, on=on) as work:
        left, follow = map_of(work.dictionaries[0], map_file, map_side)
        right, *others = map(follow, work.dictionaries[1:])
        if pairing == "index":
            paired = sg.compare_by_index(left, right, cuts=cuts or CUTS, threshold=threshold, **work.how)
            work.finish(paired)
            require_at_least(fail_under, paired.mean_cosine, "mean similarity of latents with the same id")
            return
        result = sg.compare(
            left,
            right,
            matching,
            on=on,
            signed=not absolute,
            min_similarity=min_similarity,
            min_margin=min_margin,
            control=others[0] if others else None,
            turns=turns,
            threshold=threshold,
            **work.how,
        )
        work.finish(result)
    reached = min(result.a_to_b.mean_similarity, result.b_to_a.mean_similarity)
    require_at_least(fail_under, reached, f"mean similarity ({matching})")
