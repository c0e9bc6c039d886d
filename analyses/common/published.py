"""Read published values from `expected.toml`, compare ours with them, and print a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

from analyses.common.errors import AnalysisError
from analyses.common.runs import read_toml

_LONGEST = 200  # characters of a reason in the table; stderr and the JSON file have all of it
Outcome = Literal["pass", "fail", "not available", "not comparable (demo)", "nothing published"]


@dataclass(frozen=True)
class Expected:
    """One published claim about a number.

    Attributes:
        name: name of our value that is compared with it.
        claim: the claim in words.
        place: where it is published.
        step: the step that makes the value.
        published: the number; None for an ordering.
        tolerance: largest allowed difference from the published number.
        interval: published interval, shown in the table only.
        above: for an ordering, the name of the value that ours must exceed.
        margin: for an ordering, by how much ours must exceed it.
    """

    name: str
    claim: str
    place: str
    step: str
    published: float | None = None
    tolerance: float = 0.0
    interval: tuple[float, float] | None = None
    above: str = ""
    margin: float = 0.0

    @property
    def published_text(self) -> str:
        """The entry for the table's column of published values."""
        if self.published is None:
            return f"> {self.above}" + (f" + {self.margin:g}" if self.margin else "")
        text = f"{self.published:,g}"
        return text if self.interval is None else f"{text} [{self.interval[0]:g}, {self.interval[1]:g}]"


@dataclass(frozen=True)
class Measured:
    """One of our numbers, with a note such as an interval or a count."""

    value: float
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """One line of the table: a claim, the published and our value, and the outcome."""

    name: str
    claim: str
    place: str
    published: str
    ours: str
    outcome: Outcome
    why: str


def read_expected(path: Path) -> tuple[Expected, ...]:
    """Return the claims of `expected.toml`, each a `[[value]]` or an `[[order]]`.

    Raises:
        AnalysisError: the file does not exist, or an entry has missing or unknown keys.
    """
    table = read_toml(path)
    found = []
    for kind in ("value", "order"):
        for at, entry in enumerate(table.get(kind, [])):
            needs = {"name", "claim", "place", "step"} | ({"published", "tolerance"} if kind == "value" else {"above"})
            lacks = needs - set(entry)
            stray = set(entry) - needs - {"interval", "margin"}
            if lacks or stray:
                wrong = [
                    f"{what} {', '.join(sorted(keys))}"
                    for what, keys in (("lacks", lacks), ("must not have", stray))
                    if keys
                ]
                raise AnalysisError(f"{kind} {at + 1} of {path.name} {' and '.join(wrong)}")
            if "interval" in entry:
                entry = {**entry, "interval": tuple(entry["interval"])}
            found.append(Expected(**entry))
    return tuple(found)


def judge(
    expected: Sequence[Expected],
    measured: Mapping[str, Measured],
    *,
    steps: Sequence[str],
    missing: Mapping[str, str],
    demo: bool,
) -> list[Verdict]:
    """Judge every claim that belongs to the given steps, and list our values that belong to no claim.

    Args:
        expected: the claims.
        measured: our values by name.
        steps: the requested steps; claims are listed in their order.
        missing: reasons why steps or values could not be made.
        demo: whether the demo stands in for the published runs, so that nothing is comparable.
    """
    asked = sorted((e for e in expected if e.step in steps), key=lambda e: steps.index(e.step))
    claims = [_judge(e, measured, missing, demo) for e in asked]
    spoken_of = {e.name for e in expected} | {e.above for e in expected}
    return claims + [
        Verdict(name, "", "", "–", f"{_number(m.value)} {m.note}".rstrip(), "nothing published", "")
        for name, m in measured.items()
        if name not in spoken_of and not math.isnan(m.value)
    ]


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the table of published and our values, one line per claim, with the reasons below."""
    if not verdicts:
        return "no published value belongs to the requested figures"
    head = ("value", "published", "ours", "verdict", "where")
    rows = [head, *((v.name, v.published, v.ours, v.outcome, v.place) for v in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons: dict[str, list[str]] = {}
    for v in verdicts:
        if v.why:
            reasons.setdefault(v.why, []).append(v.name)
    counted = {o: sum(v.outcome == o for v in verdicts) for o in dict.fromkeys(v.outcome for v in verdicts)}
    told = [f"  {shorten(why, _LONGEST, placeholder=' …')}: {', '.join(names)}" for why, names in reasons.items()]
    return "\n".join([*lines, *told, ", ".join(f"{n} {o}" for o, n in counted.items())])


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the verdicts as values for JSON."""
    return [asdict(v) for v in verdicts]


def _judge(e: Expected, measured: Mapping[str, Measured], missing: Mapping[str, str], demo: bool) -> Verdict:
    ours = measured.get(e.name)
    other = measured.get(e.above) if e.above else None
    why = ""
    outcome: Outcome
    if ours is None or (e.above and other is None) or math.isnan(ours.value):
        outcome = "not available"
        why = (
            missing.get(e.name)
            or missing.get(e.above)
            or missing.get(e.step)
            or "the runs file has no run for this value"
        )
    elif demo:
        outcome = "not comparable (demo)"
    elif e.published is not None:
        outcome = "pass" if abs(ours.value - e.published) <= e.tolerance else "fail"
        if outcome == "fail":
            why = f"{abs(ours.value - e.published):.4g} off; within {e.tolerance:g} would pass"
    else:
        assert other is not None
        outcome = "pass" if ours.value > other.value + e.margin else "fail"
    shown = "–" if ours is None or math.isnan(ours.value) else f"{_number(ours.value)} {ours.note}".rstrip()
    if other is not None and ours is not None:
        shown += f" > {_number(other.value)}" if ours.value > other.value else f" ≤ {_number(other.value)}"
    return Verdict(e.name, e.claim, e.place, e.published_text, shown, outcome, why)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.4f}"
