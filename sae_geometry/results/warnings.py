"""Warnings in a printed summary: limits of the conclusion, in one or two lines each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, wrap
from sae_geometry.pairwise.confounds import UNKNOWN
from sae_geometry.pairwise.same_space import TAKEN_AS_SAME
from sae_geometry.sources.layouts.table import BARE, TRANSPOSED

WIDTH, SCREEN = 80, 20  # maximum width in characters and height in lines of a printed summary
# A mismatch in one of these may explain the whole result, so it comes first.
_GRAVEST = ("model", "hook point", "normalization", "weights", "start of training", "moved from start")
_MORE = re.compile(r"and [\d,]+ more")  # end of a shortened list of caveats: see `io.formatting.few`
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def warning_lines(
    caveats: Sequence[str], flagged: Sequence[str] = (), *, most: int = 3, height: int = 2, clean: int | None = None
) -> list[str]:
    """Return lines with the gravest warnings, without repetition, and the number of warnings left out.

    Args:
        flagged: the `Finding.text` of each flagged confound.
        most, height: maximum number of warnings, and of lines for each; each has one line if any are left out.
        clean: number of checks that found nothing; None if nothing was checked.
    """
    said = _said(caveats, flagged)
    height = height if len(said) <= most else 1
    lines = [line for text in said[:most] for line in _cut(text, 2 if text.startswith(TRANSPOSED) else height)]
    left = len(said) - most
    notes = [counted(left, "more warning")] if left > 0 else []
    if clean is not None:
        number = _NUMBERS[clean] if clean < len(_NUMBERS) else str(clean)
        notes.append(f"{number} {'other ' if flagged else ''}check{'' if clean == 1 else 's'}: nothing flagged")
    return [*lines, f"  {'; '.join(notes)} (--verbose, .details())"] if notes else lines


def screen(
    lines: Sequence[str],
    caveats: Sequence[str],
    flagged: Sequence[str] = (),
    *,
    clean: int | None = None,
    below: int = 0,
) -> list[str]:
    """Return the lines of a printed summary: the answer and its caveats, with room for one more line.

    If the summary is too tall, blank lines are dropped first, then warnings are shortened, then fewer are shown.

    Args:
        flagged, clean: see `warning_lines`.
        below: number of further lines to leave room for.
    """
    whole = wrapped("\n".join(lines).split("\n"))
    dense = [line for line in whole if line]
    for said, most, height in ((whole, 2, 2), (dense, 2, 2), (dense, 2, 1), (dense, 1, 1)):
        made = [*said, *warning_lines(caveats, flagged, most=most, height=height, clean=clean)]
        if len(made) + below < SCREEN:
            break
    return made


def wrapped(lines: Sequence[str]) -> list[str]:
    """Return lines of at most 80 characters; continuations are indented by two more spaces."""
    return [
        part
        for line in lines
        for part in wrap(line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2)) or [""]
    ]


def _said(caveats: Sequence[str], flagged: Sequence[str]) -> list[str]:
    checks = [text.partition(": ")[0] for text in flagged]
    unknown = [check.removesuffix(UNKNOWN) for check in checks if check.endswith(UNKNOWN)]
    known = [(check, text) for check, text in zip(checks, flagged, strict=True) if not check.endswith(UNKNOWN)]
    spaces = ("model", "hook point") if any(c.startswith("different ") for c in caveats) else ()
    known = [(check, text) for check, text in known if check not in spaces]
    said = [*_transposed(caveats), *(c for c in caveats if c.startswith("different "))]
    said += [text for check, text in known if check in _GRAVEST]
    for caveat in caveats:
        named = BARE in caveat or _MORE.fullmatch(caveat) or (unknown and caveat.endswith(TAKEN_AS_SAME))
        if not named and not any(caveat in text or text in caveat for text in said):
            said.append(caveat)
    said += [text for check, text in known if check not in _GRAVEST]
    return [*said, *([f"unknown, so not checked: {', '.join(dict.fromkeys(unknown))}"] if unknown else [])]


def _transposed(caveats: Sequence[str]) -> list[str]:
    """Return one warning that names all arrays that may be transposed; empty if there are none."""
    asked = [c.partition(TRANSPOSED) for c in caveats if TRANSPOSED in c]
    if not asked:
        return []
    names = "".join(name for name, _, _ in asked).rstrip(": ").replace(": ", ", ")
    return [f"{TRANSPOSED}{f' {names}:' if names else ''}{asked[0][2]}"]


def _cut(text: str, most: int) -> list[str]:
    text = " ".join(shown(word, 24) for word in text.split(" "))  # A long name would leave no room for the message.
    lines = wrap(text, WIDTH - 4, initial_indent="  ! ", subsequent_indent="    ")
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: WIDTH - 6].rstrip(" ,;:") + " …"]
    return lines
