"""Many runs: every pair compared once, kept as it is finished, here or on other machines."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sae_geometry.comparisons.consensus import COLUMNS
from sae_geometry.comparisons.pair import compare
from sae_geometry.comparisons.seeds_result import SeedComparison
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, keeping_sweeps, running_on, spread
from sae_geometry.io.formatting import few
from sae_geometry.io.progress import Progress
from sae_geometry.matching import On, OneToOne
from sae_geometry.matching.defaults import THRESHOLD, default_matching
from sae_geometry.pairwise.checkpoint import N_BINS, PairParameters, PairRecord, pair_path, read_pair, write_pair
from sae_geometry.pairwise.inputs import distinct
from sae_geometry.pairwise.matching_result import few_latents
from sae_geometry.pairwise.same_space import ALLOWED, require_same_space
from sae_geometry.sources import as_dictionary


def compare_seeds(
    runs: Sequence[Any],
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
    """Compare N runs, every ordered pair: MMCS, shared fractions, PW-MCC, recurrence, consensus, rarefaction.

    Each unordered pair is swept once. A latent is *found* in another run where its partner under the one-to-one
    matching is more similar than `threshold`; recurrence counts in how many of the other runs, consensus groups those
    that all pick each other, rarefaction counts distinct latents (groups and orphans) against runs.

    Args:
        runs: at least two of anything `compare` takes.
        matching: one-to-one, "optimal" (its mean is the PW-MCC), "greedy" or "mutual"; None: optimal up to 4,096
            latents a side, greedy beyond. Named in every output.
        on: "decoder", "encoder" or "both".
        signed: False compares |cos|.
        threshold: for found and shared.
        keep: a folder in which each finished pair, and what is done of a long sweep, is kept, and found again: what an
            interrupted comparison had done is not done twice. Records of other weights or parameters are never used.
        allow_mismatch: go on although models or hook points differ; every output then says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; the pairs are compared there, with
            the same answer to the bit.
        progress: called with what is being done and the share of it done.

    Raises:
        ValueError: fewer than two runs, an unknown matching, a threshold outside −1…1, different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> s = sg.compare_seeds([f"demo:{kind}-seed{k}" for kind in ("local", "e2e") for k in (0, 1)])
        >>> s.mmcs.shape
        (4, 4)
    """
    if len(runs) < 2:
        raise ValueError(f"at least two runs are needed to compare; got {len(runs)}")
    if matching is not None and matching not in get_args(OneToOne):
        raise ValueError(f"matching must be one of {', '.join(get_args(OneToOne))}; got {matching!r}")
    if not -1 <= threshold <= 1:
        raise ValueError(f"the threshold is a cosine, within −1…1; got {threshold:g}")
    dictionaries = distinct([as_dictionary(r) for r in runs])
    notes = [f"{d.name}: {note}" for d in dictionaries for note in d.notes]
    for a, b in itertools.combinations(dictionaries, 2):
        notes += require_same_space(a, b, allow_mismatch)
    if matching is None:
        matching = default_matching(*(d.n_latents for d in dictionaries))
    if taken := sorted({d.name for d in dictionaries} & set(COLUMNS)):
        raise ValueError(f"{taken[0]!r} is a column of the consensus table: give that run another name, NAME=ADDRESS")
    parameters = PairParameters(matching, on, signed, threshold)
    folder = None if keep is None else Path(keep)
    todo = list(itertools.combinations(range(len(dictionaries)), 2))
    paths = {
        (i, j): pair_path(folder, dictionaries[i], dictionaries[j], parameters) for i, j in todo if folder is not None
    }
    kept = {(i, j): read_pair(path, dictionaries[i], dictionaries[j], parameters) for (i, j), path in paths.items()}
    done = {pair: record for pair, record in kept.items() if record is not None}

    def tick() -> None:
        if progress is not None:
            progress("pairs", len(done) / len(todo))

    with running_on(executor), nullcontext() if folder is None else keeping_sweeps(folder):
        tick()
        for (i, j), record in spread(_compare_pair, dictionaries, [p for p in todo if p not in done], parameters):
            if folder is not None:
                write_pair(paths[i, j], record, dictionaries[i], dictionaries[j], parameters)
            done[i, j] = record
            tick()
    done = {pair: done[pair] for pair in todo}
    return SeedComparison(
        tuple(dictionaries),
        matching,
        on,
        signed,
        threshold,
        done,
        (*few(sorted(notes, key=lambda note: not note.endswith(ALLOWED))), *few_latents(dictionaries, on)),
    )


def kept_records(done: SeedComparison, keep: Path) -> list[Path]:
    """Where `compare_seeds` kept the pairs of this comparison in that folder: not those of any other."""
    parameters = PairParameters(done.matching, done.on, done.signed, done.threshold)
    return [pair_path(keep, a, b, parameters) for a, b in itertools.combinations(done.runs, 2)]


def _compare_pair(a: Dictionary, b: Dictionary, p: PairParameters) -> PairRecord:
    made = compare(a, b, p.matching, on=p.on, signed=p.signed, allow_mismatch=True)
    if made.was_interrupted:
        raise KeyboardInterrupt  # the best so far of one pair among many is not worth keeping under the same name
    encoder_partner, encoder_similarity = _encoder_side(a, b, p)
    there, back = made.nearest_a_to_b, made.nearest_b_to_a
    certificate = None if made.assignment is None else made.assignment.certificate
    bins = np.linspace(-1, 1, N_BINS + 1)
    histogram = np.stack([np.histogram(np.clip(m.similarity, -1, 1), bins)[0] for m in (there, back)])
    return PairRecord(
        mmcs=(there.mmcs, back.mmcs),
        nearest_above=(there.fraction_above(p.threshold), back.fraction_above(p.threshold)),
        nearest_above_chance=(
            there.fraction_above_by_chance(p.threshold),
            back.fraction_above_by_chance(p.threshold),
        ),
        chance=(there.chance, back.chance),
        isotropic=(there.isotropic_chance, back.isotropic_chance),
        found=(there.found_fraction, back.found_fraction),
        paired=made.a_to_b.mmcs,
        paired_chance=made.a_to_b.chance,
        certified_gap=math.nan if certificate is None else float(certificate.relative_gap),
        confounds=tuple(f"{f.check}: {f.effect}" for f in made.confounds.flagged),
        partner=made.a_to_b.partner_row.astype(np.int32),
        similarity=made.a_to_b.similarity,
        histogram=histogram.astype(np.min_scalar_type(int(histogram.max()))),
        encoder_partner=encoder_partner,
        encoder_similarity=encoder_similarity,
    )


def _encoder_side(a: Dictionary, b: Dictionary, p: PairParameters) -> tuple[np.ndarray, np.ndarray]:
    """The same matching made on the encoders, where decoders are compared and both runs have encoders of one width."""
    x, y = a.encoder_directions, b.encoder_directions
    if p.on != "decoder" or x is None or y is None or x.shape[1] != y.shape[1]:
        return np.empty(0, dtype=np.int32), np.empty(0)
    made = compare(a, b, p.matching, on="encoder", signed=p.signed, null_draws=0, allow_mismatch=True)
    if made.was_interrupted:
        raise KeyboardInterrupt
    return made.a_to_b.partner_row.astype(np.int32), made.a_to_b.similarity
