"""Script that repeats the tests of signals while other processes keep the cores busy.

    python tests/workers/signals_under_load.py --times 50 --load 4 --seconds 3600

It prints the number of rounds, the load, and the number of failures; the exit code is 1 if any round failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIGNALS = ("tests/workers/test_lost_workers.py::test_a_signal_ends_client_and_workers", "tests/cli/test_lifecycle.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--load", type=int, default=4, help="processes that do nothing but keep a core busy")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no round begins later than this")
    args = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.load)]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=short", *SIGNALS]
    rounds, failed, loads, end = 0, 0, [], time.monotonic() + args.seconds
    try:
        while rounds < args.times and time.monotonic() < end:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            rounds += 1
            loads.append(os.getloadavg()[0])
            if done.returncode:
                failed += 1
                print(done.stdout[-4000:], flush=True)
    finally:
        for process in busy:
            process.kill()
    print(f"{rounds} rounds at a load of {min(loads):.1f} to {max(loads):.1f}: {failed} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
