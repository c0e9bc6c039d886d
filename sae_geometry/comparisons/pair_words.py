"""A comparison in words: the answer on one screen, and the details behind it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.comparisons.strata import RARE, rare_shares, rare_words
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import cells, shown
from sae_geometry.io.formatting import aligned, counted, or_dash, percent
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.results.warnings import WIDTH


@dataclass(frozen=True)
class Sides:
    """Contents of the first screen: both dictionaries, and the nearest and one-to-one matchings in both directions."""

    a: Dictionary
    b: Dictionary
    nearest: tuple[Matching, Matching]
    paired: tuple[Matching, Matching]
    threshold: float


def headline(s: Sides) -> str:
    """Return how many latents have a one-to-one partner above the threshold, with the null expectation."""
    there = s.paired[0]
    pairs = int((there.similarity > s.threshold).sum())
    least = min(s.a.n_latents, s.b.n_latents)
    measure = f", {there.quantity.removeprefix('decoder ')}" if _is_plain(there) else ""
    numbers = f"{pairs:,} of {least:,}   {percent(pairs / least)}   by chance {_by_chance(s, least)}"
    line = f"{f'  shared one to one{measure} > {s.threshold:g}':<35}  {numbers}"
    return line if len(line) <= WIDTH else f"  shared one to one > {s.threshold:g}   {numbers}"


def sentences(s: Sides) -> str:
    """Return the answer in two sentences, with the null expectations."""
    there, (forth, back) = s.paired[0], s.nearest
    pairs = int((there.similarity > s.threshold).sum())
    least = min(s.a.n_latents, s.b.n_latents)
    return (
        f"{pairs:,} of {counted(least, 'latent')} ({percent(pairs / least)}) have a one-to-one partner with a "
        f"{there.quantity} above {s.threshold:g}; {_by_chance(s, least)} would by chance. "
        f"{percent(forth.significant_fraction)} of A and {percent(back.significant_fraction)} of B are closer to a "
        "partner than their own dictionary and chance explain (5% false discoveries)."
    )


def first_screen(s: Sides) -> list[str]:
    """Return the numbers of the answer, in lines of 80 characters."""
    forth, back = s.nearest
    label = f"  nearest > {s.threshold:g}"
    return [
        *_header(s.a, s.b),
        *([] if _is_plain(forth) else [f"  similarity: {forth.quantity}"]),
        "",
        headline(s),
        f"{label:<35}  A {percent(forth.fraction_above(s.threshold))}   B {percent(back.fraction_above(s.threshold))}",
        f"{'  closer than chance (5% FDR)':<35}  A {percent(forth.significant_fraction)}   "
        f"B {percent(back.significant_fraction)}",
        *_frequent(s),
        *_means(s),
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


def _means(s: Sides) -> list[str]:
    """Return the means of both matchings, each way, with their null expectations."""
    (forth, back), (there, here) = s.nearest, s.paired
    name: str = "PW-MCC" if there.method == "optimal" and there.on == "decoder" else there.method
    if there.n_matched < min(s.a.n_latents, s.b.n_latents):  # a mean over a selection
        name = f"{there.method}, {counted(there.n_matched, 'pair')}"
    rows = [
        ("mean cosine" if _is_plain(forth) else "mean similarity", "A→B", "B→A", "by chance"),
        ("  nearest (MMCS)", *(f"{m.mean_similarity:.3f}" for m in s.nearest), _chances(forth, back)),
        (f"  one-to-one ({name})", *(or_dash(m.mean_similarity, ".3f") for m in s.paired), _chances(there, here)),
    ]
    return [f"  {line}" for line in aligned(rows)]


def control_lines(both: Sequence[Sides]) -> list[str]:
    """Return the answer of A with the control dictionary, and of B with it, as a table."""
    name = shown(both[0].b.name, 16)
    rows = [(f"control {name}", f"shared > {both[0].threshold:g}", "by chance", "closer than chance", "MMCS")]
    for letter, s in zip("AB", both, strict=True):
        forth = s.nearest[0]
        least = min(s.a.n_latents, s.b.n_latents)
        shared = float((s.paired[0].similarity > s.threshold).sum() / least)
        shares = (percent(shared), _by_chance(s, least), percent(forth.significant_fraction))
        rows.append((f"  {letter} with it", *shares, f"{forth.mean_similarity:.3f}"))
    return aligned(rows)


def _chances(forth: Matching, back: Matching) -> str:
    both = [or_dash(m.chance, ".3f") for m in (forth, back)]
    return both[0] if both[0] == both[1] else f"{both[0]}, {both[1]}"


def _is_plain(m: Matching) -> bool:
    """Return whether the similarity is the signed cosine of decoders, which needs no name of its own."""
    return m.on == "decoder" and m.signed


def _by_chance(s: Sides, least: int) -> str:
    """Format the expected share of shared pairs: of the matching with B turned, or an upper bound from the nearest.

    No pair at all among `least` latents bounds the share, and does not make it zero.
    """
    expected = s.paired[0].expected.share_above
    if math.isnan(expected):
        expected = min(m.fraction_above_by_chance(s.threshold) * m.n_latents for m in s.nearest) / least
    return f"< {percent(max(1 / least, 0.001))}" if expected == 0 else percent(expected)


def _frequent(s: Sides) -> list[str]:
    """Return the line of the significant shares of latents that fire on more than 1e-4 of tokens, where known."""
    shares = [(letter, rare_shares(d, m)) for letter, d, m in zip("AB", (s.a, s.b), s.nearest, strict=True)]
    said = [f"{letter} {percent(share[0])}" for letter, share in shares if share is not None]
    return [f"{f'    firing on > {RARE:g} of tokens':<35}  {'   '.join(said)}"] if said else []


def details(
    a: Dictionary,
    b: Dictionary,
    shown_matchings: Sequence[Matching],
    caveats: Sequence[str],
    control: Sequence[Matching] = (),
    threshold: float = THRESHOLD,
) -> list[str]:
    """Return the table of all directions with every number, and its definitions.

    Args:
        shown_matchings: both directions of the matching asked for, then those of nearest if it is another.
        control: of A and of B with a control dictionary.
        threshold: similarity above which latents are counted.
    """
    forth, back = shown_matchings[-2:]
    above = f"> {threshold:g}"
    head = ("direction", "matching", "mean", "matched", above, "covered", "chance", "own", "adjusted", "significant")
    lines = [f"  {line}" for line in aligned([head, *(_cells(m, threshold) for m in (*shown_matchings, *control))])]
    notes = [
        _interval_words(shown_matchings[:2]),
        _chance_words(forth, back, threshold),
        _control_words(forth, back),
        *(text for d, m in ((a, forth), (b, back)) if (text := rare_words(d, m)) is not None),
        *(f"{d.name}: {d.alive.describe()}" for d in (a, b)),
        *(f"caveat: {c}" for c in caveats),
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
        "they say nothing of other seeds"
    )


def _chance_words(forth: Matching, back: Matching, threshold: float) -> str:
    text = (
        "chance: the same against the target turned, with its principal axes and inner cosines; own: the "
        "source with itself (nearest other latent; halves matched where there may be families); "
        "adjusted: (mean − chance) / (1 − chance); "
        "significant: closer than its own dictionary and the target turned explain, 5% false discoveries"
    )
    above = [m.fraction_above_by_chance(threshold) for m in (forth, back)]
    text += f"; nearest above {threshold:g} by chance: {above[0]:.2%} and {above[1]:.2%}"
    if math.isnan(forth.isotropic_chance):
        return text
    isotropic = f"{forth.isotropic_chance:.3f} and {back.isotropic_chance:.3f}"
    return f"{text}; isotropic directions would give nearest {isotropic}"


def _control_words(forth: Matching, back: Matching) -> str:
    """Describe how fair the controls are, and what share of latents exceeds them."""
    sides = [" and ".join(str(m.balance.get(name, "–")) for m in (forth, back)) for name in ("own", "turned")]
    beyond = " and ".join(f"{m.beyond_controls.value:.1%}" for m in (forth, back))
    return (
        f"balance, wins of the nearest among undecided latents (0.5 if the control is fair): own {sides[0]}; "
        f"turned {sides[1]}; beyond the controls without a threshold (2 × wins − 1): at least {beyond}"
    )
