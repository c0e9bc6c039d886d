"""Runs every family of corrupt inputs for some seconds; `fuzz.py` runs them for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FUZZ), *words], capture_output=True, text=True)


@pytest.mark.parametrize("seconds", [1, 40])
def test_nothing_wrong_ends_in_a_crash_a_hang_or_a_traceback(seconds: int) -> None:
    done = run("--seed", "24", "--seconds", str(seconds))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"(\w+) +([\d,]+) cases: ([\d,]+) read, ([\d,]+) refused, 0 bad", done.stdout)
    assert len(counts) == 12, done.stdout
    for family, cases, *_ in counts:
        assert int(cases.replace(",", "")) >= 5, family
    assert sum(int(refused.replace(",", "")) for *_, refused in counts) > 9


def test_a_bad_end_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fuzz

    def hangs(rng: object, folder: Path) -> None:
        while True:
            pass

    def bursts(rng: object, folder: Path) -> None:
        bytearray(2 << 30)

    def trips(rng: object, folder: Path) -> None:
        raise KeyError("x")

    def babbles(rng: object, folder: Path) -> None:
        raise fuzz.SourceError("one\ntwo")

    for name, family in (("TooLong", hangs), ("Memory", bursts), ("KeyError", trips), ("not one sentence", babbles)):
        monkeypatch.setitem(fuzz.FAMILIES, "bytes", family)
        assert name in str(fuzz.try_case("bytes", 0, 0, tmp_path)[1])
