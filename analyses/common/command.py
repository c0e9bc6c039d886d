"""The command line shared by all reproductions."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analyses.common.errors import AnalysisError
from analyses.common.figures import ROOT
from analyses.common.library import Library
from analyses.common.published import as_json, judge, read_expected, table
from analyses.common.runs import RunFile, read_runs
from analyses.common.steps import Bench, Step, run_steps

PUBLISHED = "expected.toml"

FAILED, WRONG_USE, MISSED, INTERRUPTED = 1, 2, 3, 130


@dataclass(frozen=True)
class Options:
    """Options that a plan may depend on besides the runs."""

    n_epochs: int | None


@dataclass(frozen=True)
class Analysis:
    """One reproduction of a paper.

    Attributes:
        name: name of its folder under `analyses/`.
        about: one line for `--help`.
        plan: function that returns the steps, given the runs and the options.
        latents: "alive" if the paper drops dead latents.
        seed: random seed.
    """

    name: str
    about: str
    plan: Callable[[RunFile, Options], Sequence[Step]]
    latents: Literal["alive", "all"] = "alive"
    seed: int = 0

    @property
    def folder(self) -> Path:
        """The folder with its README, runs and published values."""
        return ROOT / "analyses" / self.name


def main(analysis: Analysis, arguments: Sequence[str] | None = None) -> int:
    """Run an analysis from the command line and return its exit code.

    The code is 0 if done, 1 if a figure could not be made, 2 for wrong use, 3 if a published value was missed, and 130
    if interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(analysis, given)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print(
            "stopped; finished figures and values are saved, and the same command continues from there", file=sys.stderr
        )
        return INTERRUPTED


def _run(analysis: Analysis, given: list[str]) -> int:
    args = _parser(analysis).parse_args(given)
    runs = read_runs(_runs_path(analysis, args.runs))
    claims = _claims_path(analysis, runs)
    expected = read_expected(claims)
    steps = list(analysis.plan(runs, Options(args.n_epochs)))
    names = [s.name for s in steps]
    if args.list:
        print("\n".join(f"{s.name:<12} {s.shows}" for s in steps))
        return 0
    unknown = [name for name in args.only if name not in names]
    if unknown:
        raise AnalysisError(f"there is no figure {unknown[0]!r}; the figures are {', '.join(names)}")
    chosen = [s for s in steps if not args.only or s.name in args.only]

    def say(text: str) -> None:
        if not args.quiet:
            print(text, file=sys.stderr, flush=True)

    out = args.out or (ROOT / "figures" if args.runs == "demo" else Path("reproductions"))
    bench = Bench(
        Library(latents=analysis.latents, offline=args.offline, device=_device(args.device), say=say),
        out / ".kept" / "values",
        out / ".kept" / analysis.name / _slug(args.runs),
        say,
    )
    command = ["python", "-m", f"analyses.{analysis.name}"]
    command += ["--runs", args.runs] if args.runs != "paper" else []
    command += ["--n-epochs", str(args.n_epochs)] if args.n_epochs else []
    came = run_steps(
        chosen, bench, lambda name: out / f"{analysis.name}-{name}", command=shlex.join(command),
        code=analysis.folder, seed=analysis.seed,
    )  # fmt: skip
    verdicts = judge(expected, came.values, steps=[s.name for s in chosen], missing=came.missing,
                     demo=runs.demo and claims.name == PUBLISHED)  # fmt: skip
    print(f"{analysis.name}, {runs.title}: published v ours")
    print(table(verdicts))
    if not args.only:
        path = out / f"{analysis.name}-published.json"
        text = json.dumps({"command": shlex.join(command), "runs": args.runs, "verdicts": as_json(verdicts)}, indent=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    if came.without_figure:
        return FAILED
    return MISSED if any(v.outcome == "fail" for v in verdicts) else 0


def _parser(analysis: Analysis) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m analyses.{analysis.name}", description=analysis.about)
    parser.add_argument(
        "--runs", default="paper", metavar="paper|demo|FILE",
        help="the published runs (fetched), the demo dictionaries (offline), or a TOML file like runs.toml",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", default=[], metavar="FIGURE", help="make only this figure; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list the figures and what they show")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR",
        help="folder for figures and the state for resuming; default: figures/ for the demo, else reproductions/",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use only files fetched before, without network access")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument(
        "--n-epochs", type=int, metavar="N", help="epochs of every UMAP; default: chosen by the backend"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors to stderr")
    return parser


def _runs_path(analysis: Analysis, said: str) -> Path:
    known = {"paper": "runs.toml", "demo": "runs-demo.toml"}
    return analysis.folder / known[said] if said in known else Path(said).expanduser()


def _claims_path(analysis: Analysis, runs: RunFile) -> Path:
    """Return the file of claims. The demo has its own if the analysis has claims that can be tested on any model."""
    own = analysis.folder / "expected-demo.toml"
    return own if runs.demo and own.exists() else analysis.folder / PUBLISHED


def _device(said: str) -> str:
    if said == "cpu":
        return said
    import torch

    if said == "cuda" and not torch.cuda.is_available():
        raise AnalysisError("there is no CUDA device here; leave out --device, or write --device cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _slug(said: str) -> str:
    return said if said in ("paper", "demo") else Path(said).stem
