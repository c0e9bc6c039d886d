"""Comparison of many runs, pair by pair, locally or on a cluster, resumable from a checkpoint folder."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sae_geometry.comparisons.consensus import COLUMNS, explained_up_to
from sae_geometry.comparisons.pair import compare
from sae_geometry.comparisons.seeds_result import SeedComparison
from sae_geometry.comparisons.strata import band_sums
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, settings, spread
from sae_geometry.distributed.errors import wrong_answer
from sae_geometry.io.formatting import few
from sae_geometry.io.progress import Progress
from sae_geometry.matching import On, OneToOne, match
from sae_geometry.matching.defaults import THRESHOLD, check_threshold, default_matching
from sae_geometry.pairwise.inputs import distinct, several
from sae_geometry.pairwise.pair_record import (
    N_BINS,
    PairParameters,
    PairRecord,
    check_pair,
    pair_path,
    read_pair,
    write_pair,
)
from sae_geometry.pairwise.same_space import ALLOWED, require_same_space
from sae_geometry.sources import as_dictionary


def seeds(
    runs: Any,
    *,
    matching: OneToOne | None = None,
    on: On = "decoder",
    signed: bool = True,
    threshold: float = THRESHOLD,
    keep: str | os.PathLike[str] | None = None,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> SeedComparison:
    """Compare every ordered pair of N runs: MMCS, shared fractions, PW-MCC, recurrence, consensus, rarefaction.

    Each unordered pair is swept once. A latent is *found* in another run if the similarity to its one-to-one partner
    exceeds `threshold`; recurrence counts the other runs that find it; consensus groups latents that are all partners
    of each other; rarefaction counts distinct latents (groups and orphans) against the number of runs.

    Args:
        runs: at least two of anything `compare` takes.
        matching: one-to-one matching, "optimal" (its mean is the PW-MCC), "greedy" or "mutual"; None means optimal up
            to 4,096 latents per side and greedy beyond. Every output names the matching.
        on: compare "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: False compares |cos|.
        threshold: similarity above which a latent counts as found and shared.
        keep: checkpoint folder: each finished pair is saved there, and an interrupted comparison resumes from it.
            Records made with other weights or parameters are never used.
        allow_mismatch: permit different models or hook points; every output then says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; pairs are compared there, with
            bit-identical results.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: fewer than two runs, an unknown matching, a threshold outside −1…1, different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> s = sg.seeds(["demo:local-seed0", "demo:local-seed1"])
        >>> s.mmcs.shape
        (2, 2)
    """
    runs = several(runs)
    if len(runs) < 2:
        raise ValueError(f"at least two runs are needed to compare; got {len(runs)}")
    if matching is not None and matching not in get_args(OneToOne):
        raise ValueError(f"matching must be one of {', '.join(get_args(OneToOne))}; got {matching!r}")
    check_threshold(threshold)
    dictionaries = distinct([as_dictionary(r) for r in runs])
    notes = [f"{d.name}: {note}" for d in dictionaries for note in d.notes]
    for a, b in itertools.combinations(dictionaries, 2):
        notes += require_same_space(a, b, allow_mismatch, on=on)
    if matching is None:
        matching = default_matching(*(d.n_latents for d in dictionaries))
    if taken := sorted({d.name for d in dictionaries} & set(COLUMNS)):
        raise ValueError(f"run name {taken[0]!r} is a column of the consensus table; rename the run with NAME=ADDRESS")
    parameters = PairParameters(matching, on, signed, threshold)
    todo = list(itertools.combinations(range(len(dictionaries)), 2))
    asked = {(i, j): (dictionaries[i], dictionaries[j], parameters) for i, j in todo}
    paths = {} if keep is None else {pair: pair_path(Path(keep), *what) for pair, what in asked.items()}
    kept = {pair: read_pair(path, *asked[pair]) for pair, path in paths.items()}
    done = {pair: record for pair, record in kept.items() if record is not None}

    def tick() -> None:
        if progress is not None:
            progress("pairs", len(done) / len(todo))

    with settings(executor=executor):
        tick()
        for pair, record in spread(_compare_pair, dictionaries, [p for p in todo if p not in done], parameters):
            try:
                check_pair(record, *asked[pair])
            except (ValueError, TypeError, AttributeError) as error:
                a, b, _ = asked[pair]
                raise wrong_answer(f"for {a.name} and {b.name}: {error}") from None
            if pair in paths:
                write_pair(paths[pair], record, *asked[pair])
            done[pair] = record
            tick()
    done = {pair: done[pair] for pair in todo}
    caveats = few(sorted(notes, key=lambda note: not note.endswith(ALLOWED)))
    return SeedComparison(tuple(dictionaries), matching, on, signed, threshold, done, caveats)


def forget_pairs(done: SeedComparison, keep: Path) -> None:
    """Remove this comparison's pair records from the checkpoint folder; keep the records of other comparisons."""
    parameters = PairParameters(done.matching, done.on, done.signed, done.threshold)
    for a, b in itertools.combinations(done.runs, 2):
        pair_path(keep, a, b, parameters).unlink(missing_ok=True)


def _compare_pair(a: Dictionary, b: Dictionary, p: PairParameters) -> PairRecord:
    made = compare(a, b, p.matching, on=p.on, signed=p.signed, allow_mismatch=True)
    if made.was_interrupted:
        raise KeyboardInterrupt  # An uncertified matching must not be saved as the optimal one.
    encoder_partner, encoder_similarity = _encoder_side(a, b, p)
    there, back = made.nearest_a_to_b, made.nearest_b_to_a
    certificate = None if made.assignment is None else made.assignment.certificate
    bins = np.linspace(-1, 1, N_BINS + 1)
    histogram = np.stack([np.histogram(np.clip(m.similarity, -1, 1), bins)[0] for m in (there, back)])
    own = np.concatenate([there.controls.own, back.controls.own])
    return PairRecord(
        mmcs=(there.mmcs, back.mmcs),
        nearest_above=(there.fraction_above(p.threshold), back.fraction_above(p.threshold)),
        nearest_above_chance=(there.fraction_above_by_chance(p.threshold), back.fraction_above_by_chance(p.threshold)),
        chance=(there.chance, back.chance),
        own=(there.own, back.own),
        isotropic=(there.isotropic_chance, back.isotropic_chance),
        significant=(there.significant_fraction, back.significant_fraction),
        beyond=(there.beyond_controls.value, back.beyond_controls.value),
        paired=made.a_to_b.mean_similarity,
        paired_chance=made.a_to_b.chance,
        explained=explained_up_to(np.concatenate([made.a_to_b.similarity, made.b_to_a.similarity]), own),
        certified_gap=math.nan if certificate is None else float(certificate.relative_gap),
        confounds=(
            *(f.text for f in made.confounds.flagged),
            *(f"controls: {text}" for m in (there, back) for text in m.doubts),
        ),
        partner=made.a_to_b.partner_row.astype(np.int32),
        similarity=made.a_to_b.similarity,
        histogram=histogram.astype(np.min_scalar_type(int(histogram.max()))),
        significant_latents=np.concatenate([there.significant, back.significant]),
        bands=np.stack([band_sums(a, there), band_sums(b, back)]),
        encoder_partner=encoder_partner,
        encoder_similarity=encoder_similarity,
    )


def _encoder_side(a: Dictionary, b: Dictionary, p: PairParameters) -> tuple[np.ndarray, np.ndarray]:
    """Match the encoders if decoders are compared and both encoders have the same width; else return empty arrays."""
    x, y = a.encoder_directions, b.encoder_directions
    if p.on != "decoder" or x is None or y is None or x.shape[1] != y.shape[1]:
        return np.empty(0, dtype=np.int32), np.empty(0)
    made = match(x, y.to(x.device), p.matching, absolute=not p.signed).completed()
    return made.partner.astype(np.int32), made.cosine if p.signed else np.abs(made.cosine)
