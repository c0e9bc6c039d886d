"""Run random corrupt inputs; each must give a dictionary or one sentence, in limited memory and time.

    python tests/sources/fuzz.py --seed 0 --seconds 60      every family in turn, until the time is up
    python tests/sources/fuzz.py --family pickles --case 17  one case again; -v shows its traceback

A case depends only on its seed, family and number. `tests/sources/test_fuzz.py` runs it for less than a minute.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "sources")]

from fuzz_files import arrays_family, bytes_family, pickles_family, safetensors_family, zips_family  # noqa: E402
from fuzz_servers import hugging_face_family, wandb_family  # noqa: E402
from fuzz_tables import folders_family, labels_family, models_family  # noqa: E402
from fuzz_values import configs_family, in_memory_family  # noqa: E402
from limited import TooLongError, limited  # noqa: E402

from sae_geometry.labels.neuronpedia import ExportError  # noqa: E402
from sae_geometry.sources import SourceError  # noqa: E402

Family = Callable[[random.Random, Path], object]

FAMILIES: dict[str, Family] = {
    "bytes": bytes_family,
    "safetensors": safetensors_family,
    "pickles": pickles_family,
    "zips": zips_family,
    "arrays": arrays_family,
    "configs": configs_family,
    "in_memory": in_memory_family,
    "folders": folders_family,
    "labels": labels_family,
    "models": models_family,
    "wandb": wandb_family,
    "hugging_face": hugging_face_family,
}


# Beginnings of a ValueError, other than SourceError, about numbers that were read but have no direction.
OF_NUMBERS = ("coder rows", "are dead according to")


def wrong(error: BaseException, family: str) -> str | None:
    """Return what is wrong with an exception; None if it is one sentence of the package."""
    text = str(error)
    of_numbers = type(error) in (ValueError, ExportError) and (
        family in ("in_memory", "labels", "models") or any(words in text for words in OF_NUMBERS)
    )
    if not isinstance(error, SourceError) and not of_numbers:
        return f"{type(error).__name__}: {text[:200]!a}"
    return f"not one sentence: {text[:200]!a}" if "\n" in text or len(text) > 4000 else None


def try_case(family: str, seed: int, number: int, folder: Path) -> tuple[str, str | None]:
    """Return how a case ended ("read", "refused"), and what is wrong with that."""
    rng = random.Random(f"{seed} {family} {number}")
    try:
        with warnings.catch_warnings(), limited():
            warnings.simplefilter("ignore")
            FAMILIES[family](rng, folder)
    except (Exception, TooLongError) as error:
        found = wrong(error, family)
        if found and "-v" in sys.argv:
            traceback.print_exc()
        return "refused", found
    return "read", None


def main() -> int:
    """Run the families in turn; the exit code is 1 if a case ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--case", type=int)
    parser.add_argument("-v", action="store_true", help="tracebacks")
    args = parser.parse_args()
    chosen = args.family or list(FAMILIES)
    counts: Counter[tuple[str, str]] = Counter()
    bad: dict[tuple[str, str], int] = {}
    slowest = (0.0, "", 0)
    end, number = time.monotonic() + args.seconds, args.case or 0
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() < end:
            for family in chosen:
                for case in [number] if args.case is not None else range(number * 5, number * 5 + 5):
                    if number and time.monotonic() > end:  # The first round is always completed.
                        break
                    start = time.process_time()
                    own = Path(place) / family
                    own.mkdir(exist_ok=True)
                    fate, found = try_case(family, args.seed, case, own)
                    slowest = max(slowest, (time.process_time() - start, family, case))
                    counts[family, fate] += 1
                    if found:
                        counts[family, "bad"] += 1
                        bad.setdefault((family, found[:60]), case)
                        if len(bad) < 60 and bad[family, found[:60]] == case:
                            print(f"BAD {family} --seed {args.seed} --case {case}: {found}", flush=True)
            if args.case is not None:
                break
            number += 1
    for family in chosen:
        n = {fate: counts[family, fate] for fate in ("read", "refused", "bad")}
        cases = n["read"] + n["refused"]
        print(f"{family:<14}{cases:>8,} cases: {', '.join(f'{count:,} {fate}' for fate, count in n.items())}")
    print(f"the slowest took {slowest[0]:.2f} s of processor time: {slowest[1]} --case {slowest[2]}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
