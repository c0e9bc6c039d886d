"""Train one run, resuming from its last checkpoint if there is one.

Batches depend only on the run's seed and the step, so that a stopped and resumed run ends with the same weights as an
uninterrupted one, bit for bit.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.common.errors import AnalysisError
from analyses.demo.train.activations import FIRST, Cache
from analyses.demo.train.autoencoder import Autoencoder
from analyses.demo.train.corpus import LENGTH
from analyses.demo.train.files import write_text, write_torch
from analyses.demo.train.objectives import LaterBlocks, Loss, end_to_end_loss, local_loss
from analyses.demo.train.plan import Run

TOKENS = 512  # tokens per batch of a local run
SEQUENCES = 4  # sequences per batch of an end-to-end run
POSITIONS = 12  # positions per sequence at which output distributions are compared
WARMUP = 100  # steps over which the learning rate rises
SPARSITY_WARMUP = 0.1  # share of the steps over which the sparsity coefficient rises
DECAY = 0.3  # share of the steps, at the end, over which the learning rate falls
LEAST = 0.02  # final learning rate as a share of its maximum
LOG_EVERY = 10  # steps
SAVE_EVERY = 180.0  # seconds
MILESTONES = (
    50,
    100,
    200,
    400,
    800,
    1200,
    1600,
    2000,
    2400,
    2800,
    3200,
    3600,
)  # steps after which the weights are saved


def train(
    run: Run,
    data: Cache,
    tail: LaterBlocks | None,
    folder: Path,
    *,
    stop_at: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> bool:
    """Train a run, with its files in `folder`, and return whether it is finished.

    Writes `state.pt` (everything needed to resume), `log.csv`, and `checkpoints/step-N.pt` (float16 weights).

    Args:
        run: the run to train.
        data: activations of the training text.
        tail: the model's later blocks; not needed for a local run.
        folder: the run's folder.
        stop_at: step at which to stop early.
        stopped: called after each step; if it returns true, training stops with everything saved.
        say: called with a line of progress now and then.

    Raises:
        AnalysisError: `folder` holds a run with other settings.
    """
    scale = activation_scale(data)
    sae = Autoencoder(center(data, scale), run.n_latents, run.init)
    optimizer = torch.optim.Adam(sae.parameters(), lr=run.learning_rate)
    state = _resume(folder / "state.pt", run, sae, optimizer)
    last = run.n_steps if stop_at is None else min(stop_at, run.n_steps)
    saved, began = time.monotonic(), time.monotonic()
    step = state["step"]
    while step < last and not stopped():
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate * schedule(step, run.n_steps)
        loss, parts = batch_loss(run, sae, data, tail, step, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOG_EVERY == 0 or step == run.n_steps - 1:
            row = {"step": step, "loss": loss.item(), **{k: v.item() for k, v in parts.items()}}
            state["log"].append(row)
        step += 1
        if step in MILESTONES:
            write_torch(folder / "checkpoints" / f"step-{step}.pt", {k: v.half() for k, v in sae.state_dict().items()})
        if time.monotonic() - saved > SAVE_EVERY:
            seconds = state["seconds"] + time.monotonic() - began
            _save(folder, run, sae, optimizer, step, state["log"], seconds)
            saved = time.monotonic()
            say(_line(run, state["log"][-1], seconds))
    seconds = state["seconds"] + time.monotonic() - began
    _save(folder, run, sae, optimizer, step, state["log"], seconds)
    if state["log"]:
        say(_line(run, state["log"][-1], seconds))
    return step == run.n_steps


def batch_loss(run: Run, sae: Autoencoder, data: Cache, tail: LaterBlocks | None, step: int, scale: float) -> Loss:
    """Return the loss of the batch of one step."""
    n_sequences, length, _ = data.here.shape
    l1 = run.l1 * min(1.0, (step + 1) / (SPARSITY_WARMUP * run.n_steps))
    if run.objective == "local":
        flat = batch_at(run.order, step, n_sequences * (length - FIRST), TOKENS)
        rows = data.here[flat // (length - FIRST), FIRST + flat % (length - FIRST)]
        return local_loss(sae, torch.from_numpy(rows.astype(np.float32)) * scale, l1=l1)
    if tail is None:
        raise AnalysisError(f"{run.name} is trained through the model and needs its later blocks")
    here, later = data.rows(np.sort(batch_at(run.order, step, n_sequences, SEQUENCES)))
    random = np.random.default_rng((run.order, step))
    positions = FIRST + np.sort(random.choice(length - FIRST, POSITIONS, replace=False))
    return end_to_end_loss(sae, here, later, positions.tolist(), tail, scale=scale, l1=l1, downstream=run.downstream)


def batch_at(seed: int, step: int, n: int, size: int) -> np.ndarray:
    """Return the members of one step's batch; each of `n` occurs at most once per pass, in an order set by the seed."""
    each = n // size
    passes, at = divmod(step, each)
    return _order(seed, passes, n)[at * size : (at + 1) * size]


@lru_cache(maxsize=2)
def _order(seed: int, passes: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, passes, n)).permutation(n)


def tokens_per_step(run: Run) -> int:
    """Return the number of tokens in a batch."""
    return TOKENS if run.objective == "local" else SEQUENCES * LENGTH


def schedule(step: int, n_steps: int) -> float:
    """Return the learning rate as a share of its maximum: a linear rise, a plateau, a linear fall."""
    return min(1.0, (step + 1) / WARMUP) * min(1.0, max(LEAST, (n_steps - step) / (DECAY * n_steps)))


def activation_scale(data: Cache) -> float:
    """Return the factor that brings activations from position `FIRST` on to a mean norm of √d."""
    first = _first(data)
    return float(first.shape[-1] ** 0.5 / np.linalg.norm(first, axis=-1).mean())


def center(data: Cache, scale: float) -> Float[Tensor, " d"]:
    """Return the mean of the scaled activations."""
    return torch.from_numpy((_first(data).mean((0, 1)) * scale).astype(np.float32))


def _first(data: Cache) -> np.ndarray:
    """Return enough activations to estimate a norm and a mean."""
    return data.here[:200, FIRST:].astype(np.float64)


def read_autoencoder(folder: Path) -> Autoencoder:
    """Return the autoencoder of a run's latest state."""
    weights = torch.load(folder / "state.pt", weights_only=True)["weights"]
    sae = Autoencoder(torch.zeros_like(weights["b_dec"]), len(weights["b_enc"]), seed=0)
    sae.load_state_dict(weights)
    return sae


def _resume(path: Path, run: Run, sae: Autoencoder, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    if not path.exists():
        return {"step": 0, "log": [], "seconds": 0.0}
    state: dict[str, Any] = torch.load(path, weights_only=True)
    changed = [key for key, value in asdict(run).items() if state["run"].get(key) != value]
    if changed:
        raise AnalysisError(
            f"{path.parent} was trained with a different {', '.join(changed)}; move it away or set {changed[0]} back"
        )
    sae.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def _save(
    folder: Path, run: Run, sae: Autoencoder, optimizer: torch.optim.Optimizer, step: int, log: list[dict[str, float]],
    seconds: float,
) -> None:  # fmt: skip
    state = {
        "run": asdict(run), "step": step, "weights": sae.state_dict(), "optimizer": optimizer.state_dict(),
        "log": log, "seconds": seconds,
    }  # fmt: skip
    write_torch(folder / "state.pt", state)
    if log:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)
        write_text(folder / "log.csv", table.getvalue())


def _line(run: Run, row: dict[str, float], seconds: float) -> str:
    said = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
    return f"{run.name}: step {row['step']:.0f} of {run.n_steps}, {said}, {seconds:.0f} s"
