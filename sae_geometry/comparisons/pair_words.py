"""Text of a comparison: the printed summary, hints, and the full report."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

import numpy as np

from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.comparisons.pair_matchings import PairMatchings
from sae_geometry.comparisons.strata import RARE, rare_shares, rare_words
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import cells, shown
from sae_geometry.io.formatting import aligned, counted, or_dash, percent
from sae_geometry.pairwise.mapping import plain_cosines
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.results.warnings import WIDTH

_SAME_IDS = 0.5  # Ids are taken to correspond if more than this share of mutual pairs have the same id.


def headline(c: PairMatchings) -> str:
    """Return the line that states how many latents have a one-to-one partner above the threshold."""
    there, pairs, least = _shared(c)
    measure = f", {there.quantity.removeprefix('decoder ')}" if _is_plain(there) else ""
    numbers = f"{pairs:,} of {least:,}   {percent(pairs / least)}   by chance {_by_chance(c)}"
    line = f"{f'  shared one to one{measure} > {c.threshold:g}':<35}  {numbers}"
    return line if len(line) <= WIDTH else f"  shared one to one > {c.threshold:g}   {numbers}"


def sentences(c: PairMatchings) -> str:
    """Return two sentences: the share of latents with a one-to-one partner, and of significant latents."""
    (there, pairs, least), (forth, back) = _shared(c), c._nearest
    return (
        f"{pairs:,} of {counted(least, 'latent')} ({percent(pairs / least)}) have a one-to-one partner with a "
        f"{there.quantity} above {c.threshold:g}; {_by_chance(c)} would be expected by chance. "
        f"{percent(forth.significant_fraction)} of A's latents and {percent(back.significant_fraction)} of B's are "
        "closer to a partner than their own dictionary and chance explain (5% false discoveries)."
    )


def _shared(c: PairMatchings) -> tuple[Matching, int, int]:
    """Return the one-to-one matching, the number of its pairs above the threshold, and the smaller dictionary size."""
    there = c._paired[0]
    return there, int((there.similarity > c.threshold).sum()), min(c.a.n_latents, c.b.n_latents)


def first_screen(c: PairMatchings) -> list[str]:
    """Return the lines of the printed summary, at most 80 characters each."""
    forth, back = c._nearest
    label = f"  nearest > {c.threshold:g}"
    return [
        *_header(c.a, c.b),
        *([] if _is_plain(forth) else [f"  similarity: {forth.quantity}"]),
        "",
        headline(c),
        f"{label:<35}  A {percent(forth.fraction_above(c.threshold))}   B {percent(back.fraction_above(c.threshold))}",
        f"{'  closer than chance (5% FDR)':<35}  A {percent(forth.significant_fraction)}   "
        f"B {percent(back.significant_fraction)}",
        *_frequent(c),
        *_means(c),
    ]


def _header(a: Dictionary, b: Dictionary) -> list[str]:
    sizes = [_size(d) for d in (a, b)]
    names = [shown(d.name, WIDTH - len(f"A    {size}")) for d, size in zip((a, b), sizes, strict=True)]
    if sizes[0] == sizes[1]:
        line = f"A {names[0]}   B {names[1]}   {sizes[0]}".replace(" live latents", " live latents each")
        if cells(line) <= WIDTH:
            return [line]
    return [f"{letter} {name}   {size}" for letter, name, size in zip("AB", names, sizes, strict=True)]


def _size(d: Dictionary) -> str:
    if d.alive.n_dead is None:
        return f"{counted(d.n_latents, 'latent')}, dead ones unknown"
    dropped = d.alive.n_dropped_dead
    if not dropped and d.alive.n_dead:
        return f"{counted(d.n_latents, 'latent')}, {d.alive.n_dead:,} of them dead"
    return counted(d.n_latents, "live latent") + (f" ({dropped:,} dead dropped)" if dropped else "")


def _means(c: PairMatchings) -> list[str]:
    """Return the means of both matchings in both directions, with their null expectations."""
    (forth, back), (there, here) = c._nearest, c._paired
    name: str = "PW-MCC" if there.method == "optimal" and there.on == "decoder" else there.method
    if there.n_matched < min(c.a.n_latents, c.b.n_latents):  # The mean covers only some latents.
        name = f"{there.method}, {counted(there.n_matched, 'pair')}"
    rows = [
        ("mean cosine" if _is_plain(forth) else "mean similarity", "A→B", "B→A", "by chance"),
        ("  nearest (MMCS)", *(f"{m.mean_similarity:.3f}" for m in (forth, back)), _chances(forth, back)),
        (f"  one-to-one ({name})", *(or_dash(m.mean_similarity, ".3f") for m in (there, here)), _chances(there, here)),
    ]
    return [f"  {line}" for line in aligned(rows)]


def control_lines(both: Sequence[PairMatchings]) -> list[str]:
    """Return a table that compares A and B with the control dictionary."""
    name = shown(both[0].b.name, 16)
    rows = [(f"control {name}", f"shared > {both[0].threshold:g}", "by chance", "closer than chance", "MMCS")]
    for letter, c in zip("AB", both, strict=True):
        _, pairs, least = _shared(c)
        forth = c.nearest_a_to_b
        shares = (percent(pairs / least), _by_chance(c), percent(forth.significant_fraction))
        rows.append((f"  {letter} with control", *shares, f"{forth.mean_similarity:.3f}"))
    return aligned(rows)


def _chances(forth: Matching, back: Matching) -> str:
    both = [or_dash(m.chance, ".3f") for m in (forth, back)]
    return both[0] if both[0] == both[1] else f"{both[0]}, {both[1]}"


def _is_plain(m: Matching) -> bool:
    """Return whether the similarity is the default, the signed decoder cosine, which need not be named."""
    return m.on == "decoder" and m.signed


def _by_chance(c: PairMatchings) -> str:
    """Format the share of shared pairs expected by chance: from matchings with the turned B, or as a bound.

    An expectation of zero is printed as a bound, "< x%", since it comes from finitely many latents.
    """
    there, _, least = _shared(c)
    expected = there.expected.share_above
    if math.isnan(expected):
        expected = min(m.fraction_above_by_chance(c.threshold) * m.n_latents for m in c._nearest) / least
    return f"< {percent(max(1 / least, 0.001))}" if expected == 0 else percent(expected)


def _frequent(c: PairMatchings) -> list[str]:
    """Return a line with the share of significant latents among those that fire on over 1e-4 of tokens, if known."""
    shares = [(letter, rare_shares(d, m)) for letter, d, m in zip("AB", (c.a, c.b), c._nearest, strict=True)]
    said = [f"{letter} {percent(share[0])}" for letter, share in shares if share is not None]
    return [f"{f'    firing on > {RARE:g} of tokens':<35}  {'   '.join(said)}"] if said else []


def details(c: PairMatchings) -> list[str]:
    """Return a table with one row per direction of each matching, followed by intervals, definitions and caveats."""
    asked, (forth, back) = (c.a_to_b, c.b_to_a), c._nearest
    matchings = [*asked, *(() if c.matching == "nearest" else c._nearest), *(x.a_to_b for x in c.against_control or ())]
    above = f"> {c.threshold:g}"
    head = ("direction", "matching", "mean", "matched", above, "covered", "chance", "own", "adjusted", "significant")
    lines = [f"  {line}" for line in aligned([head, *(_cells(m, c.threshold) for m in matchings)])]
    notes = [
        _interval_words(asked),
        _chance_words(forth, back, c.threshold),
        _control_words(forth, back),
        *(text for d, m in ((c.a, forth), (c.b, back)) if (text := rare_words(d, m)) is not None),
        *(f"{d.name}: {d.alive.describe()}" for d in (c.a, c.b)),
        *(f"caveat: {text}" for text in c.caveats),
    ]
    for note in notes:
        lines += textwrap.wrap(note, 110, initial_indent="  ", subsequent_indent="    ")
    return lines


def _cells(m: Matching, threshold: float) -> tuple[str, ...]:
    return (
        f"{m.source} → {m.target}",
        m.method,
        f"{m.mean_similarity:.4f}",
        f"{m.n_matched:,} of {m.n_latents:,}",
        f"{m.fraction_above(threshold):.1%}",
        f"{m.coverage:.1%}",
        or_dash(m.chance, ".3f"),
        or_dash(m.own, ".3f"),
        or_dash(m.chance_adjusted, ".3f"),
        f"{m.significant_fraction:.1%}",
    )


def _interval_words(both: Sequence[Matching]) -> str:
    spread = [interval_over_latents(m.similarity) if m.n_matched > 1 else None for m in both]
    texts = [f"{i.low:.4f}–{i.high:.4f}" if i else "unknown" for i in spread]
    return (
        f"95% intervals of the {both[0].method} means: {' and '.join(texts)}, over the latents of this one pair; "
        "they say nothing about other seeds"
    )


def _chance_words(forth: Matching, back: Matching, threshold: float) -> str:
    text = (
        "chance: the same mean against the turned target, which keeps its principal axes and inner cosines; own: the "
        "source with itself (nearest other latent, or matched halves if there may be families); "
        "adjusted: (mean − chance) / (1 − chance); significant: share of latents closer to a partner than their own "
        "dictionary and the turned target explain (5% false discoveries)"
    )
    above = [m.fraction_above_by_chance(threshold) for m in (forth, back)]
    text += f"; expected share of nearest partners above {threshold:g}: {above[0]:.2%} and {above[1]:.2%} by chance"
    if math.isnan(forth.isotropic_chance):
        return text
    isotropic = f"{forth.isotropic_chance:.3f} and {back.isotropic_chance:.3f}"
    return f"{text}; MMCS expected against isotropic directions: {isotropic}"


def _control_words(forth: Matching, back: Matching) -> str:
    """Describe the fairness of the controls and the share of latents that exceed them."""
    sides = [" and ".join(str(m.balance.get(name, "–")) for m in (forth, back)) for name in ("own", "turned")]
    beyond = " and ".join(f"{m.beyond_controls.value:.1%}" for m in (forth, back))
    return (
        f"balance (wins of the nearest among undecided latents, 0.5 if the control is fair): own {sides[0]}; "
        f"turned {sides[1]}; share of latents beyond the controls (2 × wins − 1, at any similarity): at least {beyond}"
    )


def hints(c: PairMatchings) -> list[str]:
    """Return hints about linear maps, mean cosines before the maps, and ids that seem to correspond."""
    mapped = [(letter, d) for letter, d in (("A", c.a), ("B", c.b)) if d.unmapped is not None]
    said = [f"{letter} {next(note for note in d.notes if note.startswith('mapped by'))}" for letter, d in mapped]
    if (plain := plain_means(c)) is not None:
        said.append(f"before the map, the nearest pairs have mean cosines {plain[0]:.4f} and {plain[1]:.4f}")
    if c.on == "decoder" and (why := _same_ids(c.a, c.b, c.nearest_a_to_b)) is not None:
        said.append(f"try compare_by_index (--pairing index): {why}")
    return said


def plain_means(c: PairMatchings) -> tuple[float, float] | None:
    """Return the mean cosines of nearest pairs before the linear map, both directions; None if these are undefined."""
    forth, back = c._nearest
    there = plain_cosines(c.a, c.b, forth.source_ids, forth.partner)
    here = plain_cosines(c.b, c.a, back.source_ids, back.partner)
    return None if there is None or here is None else (float(np.nanmean(there)), float(np.nanmean(here)))


def _same_ids(a: Dictionary, b: Dictionary, forth: Matching) -> str | None:
    """Return why latents with the same id seem to correspond; None if they do not."""
    if a.alive.n_total != b.alive.n_total or a.fingerprint == b.fingerprint:
        return None
    files = [(d.address or d.name).rpartition("::") for d in (a, b)]
    if files[0][0] and files[0][0] == files[1][0] and all(re.match(r"(model|layer)=", f[2]) for f in files):
        return "two outputs of the same latents"
    share = float((forth.partner == forth.source_ids)[forth.mutual].mean()) if forth.mutual.any() else 0.0
    return f"{share:.0%} of mutual pairs have the same id" if share > _SAME_IDS else None
