"""Long sweeps done a stripe of rows at a time, what is done being kept on disk: a killed process costs one stripe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.collect import Sent, as_array, as_best, joined_report, take_in, to_keep, to_send
from sae_geometry.distributed.pairs import Pair, Spreads, one_by_one
from sae_geometry.distributed.sweep_record import HALF, SweepIdentity, SweepRecord, identify, read_sweep, write_sweep
from sae_geometry.kernels.blocks import CeilingError
from sae_geometry.kernels.ledger import ledger
from sae_geometry.kernels.runner import Runner, current_runner, sweeps_run_by
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.topk_merge import no_lists
from sae_geometry.kernels.types import ScreenName, Sweep, SweepReport, Task

T = TypeVar("T")
LONG = 2e12  # multiplications below which a sweep is not worth keeping: some ten seconds of two cores
_LONG_ON_A_GPU = 2e14
_FIRST = 0.1  # of that, the first stripe
STRIPE = 30.0  # seconds a stripe should take
_REASONS = 3  # that are told
_HELD = 36  # bytes of an entry of the lists: of the result, and of the copy that is written


class KeepingRunner:
    """Does long sweeps a stripe of rows after another, each offered to `then`, and keeps what is done in a folder.

    A sweep asked for again with the same numbers goes on from the row it had come to, with the same answer to the bit:
    lists are exact, and merging them does not depend on where the stripes were cut.

    Args:
        folder: made when there is something to keep.
        then: who is offered the stripes, and the sweeps that are too short to be kept; None is this process.
        long: multiplications from which a sweep is kept; by default 2e12, a hundred times that on a GPU.
        stripe: seconds between two times of keeping, 30 by default; the rows of a stripe follow from how long the last
            one took.
    """

    def __init__(
        self, folder: Path, *, then: Runner | None = None, long: float | None = None, stripe: float | None = None
    ) -> None:
        self.folder, self.then, self.long, self.stripe = folder, then, long, stripe
        self._mine: set[Path] = set()
        self._troubles: list[OSError] = []

    def __call__(self, task: Task, screen: ScreenName) -> Sweep | None:
        """The whole sweep; None, or what `then` says, where it is too short to be kept."""
        long = self.long if self.long is not None else LONG if task.a.device.type == "cpu" else _LONG_ON_A_GPU
        n, m = task.a.shape[0], task.others.shape[0]
        a_row = float(m) * task.a.shape[1] / (2 if task.within else 1)
        if n * a_row < long:
            return None if self.then is None else self.then(task, screen)
        identity = identify(task)
        path = self.folder / identity.file_name
        self._mine.add(path)
        before = read_sweep(path, identity)
        whole = _Whole(task, before)
        seconds = STRIPE if self.stripe is None else self.stripe
        stripe = max(1, round(_FIRST * long / a_row))
        while whole.done < n:
            began = time.perf_counter()
            rows = (whole.done, min(n, whole.done + stripe))
            with ledger(), sweeps_run_by(self.then):  # the ledger is told of the whole, not of stripes
                whole.add(rows, screen)
            took = max(time.perf_counter() - began, 1e-9)
            stripe = max(1, round((rows[1] - rows[0]) * min(4.0, max(0.25, seconds / took))))
            self._keep(path, whole, identity)
        why = whole.why
        if before is not None:
            why = f"{why}; {before.done:,} of {n:,} rows were kept from before an interruption"
        return whole.answer(why)

    def pairs(
        self,
        work: Callable[[Dictionary, Dictionary, Any], T],
        dictionaries: Sequence[Dictionary],
        todo: Sequence[Pair],
        parameters: Any,
    ) -> Iterator[tuple[Pair, T]]:
        """Whole pairs, by `then` if it takes any, else here; what is kept of a pair's sweeps goes when the next is
        asked for: the caller has kept the pair by then.
        """
        made = self.then.pairs if isinstance(self.then, Spreads) else one_by_one
        for pair in made(work, dictionaries, todo, parameters):
            yield pair
            self.forget()

    def over(self, then: Runner) -> KeepingRunner:
        """The same, its stripes offered to somebody else."""
        other = KeepingRunner(self.folder, then=then, long=self.long, stripe=self.stripe)
        other._mine, other._troubles = self._mine, self._troubles
        return other

    def forget(self) -> None:
        """Remove what was kept of the sweeps made so far: what they were for is done."""
        for path in self._mine:
            with suppress(OSError):
                path.unlink()
        self._mine.clear()

    def _keep(self, path: Path, whole: _Whole, identity: SweepIdentity) -> None:
        """Write what is done; where that cannot be, go on without: the answer is worth more than its record."""
        try:
            write_sweep(path, whole.record(), identity)
        except OSError as error:
            self._troubles.append(error)

    @property
    def trouble(self) -> OSError | None:
        """Why something could not be kept, the last time."""
        return self._troubles[-1] if self._troubles else None


@contextmanager
def keeping_sweeps(
    folder: str | Path, *, long: float | None = None, stripe: float | None = None
) -> Iterator[KeepingRunner]:
    """While this lasts, in this thread, long sweeps keep what they have done in `folder`, and go on from what is there.

    Each is kept under the SHA-256 of its numbers and of what is asked of them, so that nothing of another question is
    ever used. When the block ends well, what was kept is removed; where it ends by an error, Ctrl-C or the death of the
    process, it stays, and the same block run again goes on from it. A folder that cannot be written keeps nothing, and
    harms nothing: `trouble` of what this gives is then the error.

    Args:
        folder: made when there is something to keep: at most 24·k bytes a latent and sweep.
        long: multiplications (n·m·d) from which a sweep is kept; by default 2e12, on a GPU 2e14.
        stripe: about how many seconds of work an interruption may cost; by default 30.

    Example:
        >>> import tempfile, torch
        >>> from sae_geometry.distributed import keeping_sweeps
        >>> from sae_geometry.kernels.sweep import sweep
        >>> with keeping_sweeps(tempfile.mkdtemp(), long=0.0, stripe=0.0) as kept:
        ...     rows = sweep(torch.eye(3), torch.eye(3).roll(1, 0)).rows.index.flatten().tolist()
        ...     [path.name[:6] for path in kept.folder.iterdir()]
        ['sweep-']
        >>> rows, list(kept.folder.iterdir())
        ([1, 2, 0], [])
    """
    runner = KeepingRunner(Path(folder), then=current_runner(), long=long, stripe=stripe)
    for half in sorted(runner.folder.glob(f"{HALF}*")):  # of a process that was killed as it wrote
        with suppress(OSError):
            half.unlink()
    with sweeps_run_by(runner):
        yield runner
    runner.forget()


class _Whole:
    """A sweep as far as it has come."""

    def __init__(self, task: Task, before: SweepRecord | None) -> None:
        n, m = task.a.shape[0], task.others.shape[0]
        self.task, self.done = task, 0
        self.bias = None if task.column_bias is None else as_array(task.column_bias)
        self.rows = no_lists(n, task.k)
        self.cols = no_lists(m, task.k) if task.columns and not task.within else None
        self.reports: list[SweepReport] = []
        if before is not None:
            self.done, self.reports = before.done, [before.report]
            self._take_rows(before.rows, 0)
            if before.cols is not None:
                self._take_cols(before.cols, 0)
        looked_at = [Tile((0, self.done), (0, m))] if not task.within else _triangle((0, self.done), n)
        self.made, self.pairs = sum(t.pairs for t in looked_at), n * n / 2 if task.within else float(n * m)

    def add(self, rows: tuple[int, int], screen: ScreenName) -> None:
        """Sweep the next rows of A: against all of B, or within A against each other and against all later ones."""
        n, m = self.task.a.shape[0], self.task.others.shape[0]
        for tile in _triangle(rows, n) if self.task.within else [Tile(rows, (0, m))]:
            found = self._sweep(tile, screen)
            self._take_rows(to_send(found.rows, tile.cols[0]), tile.rows[0])
            if found.cols is not None:
                self._take_cols(to_send(found.cols, tile.rows[0]), tile.cols[0])
            self.reports.append(found.report)
            self.made += tile.pairs
        self.done = rows[1]

    def answer(self, why: str) -> Sweep:
        """The sweep, all rows being done."""
        device = self.task.a.device
        cols = None if self.cols is None else as_best(self.cols, device)
        return Sweep(as_best(self.rows, device), cols, self._report(why))

    def record(self) -> SweepRecord:
        """What is done, to be kept."""
        cols = None if self.cols is None else to_keep(self.cols)
        return SweepRecord(self.done, to_keep(self.rows), cols, self._report(self.why))

    @property
    def why(self) -> str:
        """Why the screens were taken: the reasons of the stripes, those that differ."""
        reasons = list(dict.fromkeys(r.why for r in self.reports))
        return "; then ".join(reasons[:_REASONS]) + ("; …" if len(reasons) > _REASONS else "")

    def _report(self, why: str) -> SweepReport:
        return joined_report(self.task, self.reports, why, sum(r.seconds for r in self.reports))

    def _left(self) -> int | None:
        """The memory for a stripe: what the whole's lists leave of the ceiling, if there is one.

        Raises:
            CeilingError: nothing is left.
        """
        if not self.task.memory_asked:
            return None
        held = _HELD * self.task.k * (len(self.rows[0]) + (0 if self.cols is None else len(self.cols[0])))
        if held >= self.task.memory:
            raise CeilingError(
                f"the memory ceiling of {self.task.memory:,} bytes leaves nothing beside the {held:,} of the results"
            )
        return self.task.memory - held

    def _take_rows(self, sent: Sent, start: int) -> None:
        take_in(self.rows, sent, start, absolute=self.task.absolute, bias=self.bias)

    def _take_cols(self, sent: Sent, start: int) -> None:
        side = self.rows if self.cols is None else self.cols
        take_in(side, sent, start, absolute=self.task.absolute, bias=None)

    def _sweep(self, tile: Tile, screen: ScreenName) -> Sweep:
        task, made = self.task, self.made
        told = task.progress
        return sweep(
            task.a[slice(*tile.rows)],
            None if tile.within else task.others[slice(*tile.cols)],
            task.k,
            columns=task.columns or task.within,
            absolute=task.absolute,
            column_bias=task.column_bias,
            screen=screen,
            threads=task.threads,
            progress=None if told is None else lambda share: told((made + share * tile.pairs) / self.pairs),
            memory=self._left(),
        )


def _triangle(rows: tuple[int, int], n: int) -> list[Tile]:
    """The pairs i < j within n rows whose i is one of these."""
    rest = [Tile(rows, (rows[1], n))] if rows[1] < n else []
    return [Tile(rows, rows, within=True), *rest]
