"""Search of one or many dictionaries for the latents closest to a vector, with p-values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sae_geometry.comparisons.nearest_result import Nearest
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import few
from sae_geometry.io.frozen import read_only
from sae_geometry.io.labels import Labels
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import MAX_K, sweep
from sae_geometry.kernels.topk_merge import merge_into, no_lists
from sae_geometry.labels.pairs import sources_of
from sae_geometry.labels.tokens import require_readable, top_tokens
from sae_geometry.labels.unembedding import Unembedding, read_unembedding
from sae_geometry.nulls import principal_axes, turned_copies
from sae_geometry.pairwise.inputs import describe_input, distinct_names
from sae_geometry.pairwise.label_columns import labels_of
from sae_geometry.pairwise.mapping import plain_cosines, unmapped
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.sources import OrientationWarning, SourceError, as_dictionary, neuronpedia_pages
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.layouts.read import Latents
from sae_geometry.sources.listing import checkpoints_at, dictionaries_at, expanded
from sae_geometry.sources.load import read
from sae_geometry.sources.vectors import as_vectors

K = 10
_MOST_TURNS, _LEAST_TURNS, _TURNED_VECTORS = 999, 19, 10_000
_TURNED_ROWS = 4096  # turned vectors per sweep
_ROUNDING = 1e-6  # A turn that leaves a vector unchanged reproduces its cosine only up to rounding.


@dataclass
class _Search:
    """Search in progress: the best hits so far, and the null distribution of the largest cosine."""

    vectors: Dictionary
    k: int
    signed: bool
    turns: int
    seed: int
    unembedding: Unembedding | None
    searched: list[dict[str, Any]] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = self.vectors.n_latents
        self.lists = no_lists(n, self.k)
        self.largest = np.full((self.turns, n), -np.inf)
        self.n_before = 0
        self.plain: dict[tuple[int, int], float] = {}
        self.labels: dict[int, dict[Any, Any]] = {}
        self.labeled: dict[str, Labels] = {}

    def add(self, d: Dictionary, progress: Callable[[float], None] | None) -> None:
        """Merge the best latents of one dictionary into the hits, and its turns into the null distribution."""
        x, y = self.vectors.directions, d.directions
        x = x.to(y.device)
        how: Any = {"columns": False, "absolute": not self.signed}
        best = sweep(x, y, self.k, progress=progress, **how).rows
        score, cosine, index = (t.cpu().numpy() for t in (best.score, best.cosine, best.index))
        merge_into(self.lists, (score, cosine, np.where(index < 0, -1, index + self.n_before)), 0)
        self.plain |= self._plain_of(d, index)
        self._label_hits(d)
        if self.turns:
            axes = principal_axes(y)
            step = max(1, _TURNED_ROWS // len(x))
            for start in range(0, self.turns, step):
                some = min(step, self.turns - start)
                copies = turned_copies(x, axes, some, seed=self.seed + self.turns * len(self.searched) + start)
                found = sweep(copies, y, 1, **how).rows.score[:, 0].cpu().numpy().reshape(some, len(x))
                np.maximum(self.largest[start : start + some], found, out=self.largest[start : start + some])
        self.searched.append(describe_input(d) | {"pages": neuronpedia_pages(d.metadata, d.address)})
        self.ids.append(d.latent_ids.cpu().numpy())
        self.n_before += d.n_latents

    def _plain_of(self, d: Dictionary, index: np.ndarray) -> dict[tuple[int, int], float]:
        """Return the cosines before the linear map, keyed by vector and position among all candidates."""
        at, rank = np.nonzero(index >= 0)
        rows, ids = index[at, rank], d.latent_ids.cpu().numpy()
        plain = plain_cosines(self.vectors, d, self.vectors.latent_ids.cpu().numpy()[at], ids[rows])
        keys = zip(at.tolist(), (rows + self.n_before).tolist(), strict=True)
        return {} if plain is None else dict(zip(keys, plain.tolist(), strict=True))

    def _label_hits(self, d: Dictionary) -> None:
        """Add the labels of the hits in the latest dictionary, and drop the labels of former hits."""
        listed = {int(j) for j in np.unique(self.lists[2]) if j >= 0}
        self.labels = {j: row for j, row in self.labels.items() if j in listed}
        rows = np.array(sorted(j - self.n_before for j in listed if j >= self.n_before), dtype=np.int64)
        if not len(rows) or (d.labels is None and self.unembedding is None):
            return
        hits = unmapped(d).select(d.latent_ids.cpu().numpy()[rows])
        if self.unembedding is not None:
            hits = hits.labeled(top_tokens(hits, self.unembedding))
        assert hits.labels is not None
        found = labels_of(hits.labels, hits.latent_ids.numpy()).to_dict("records")
        self.labels |= dict(zip((rows + self.n_before).tolist(), found, strict=True))
        self.labeled[d.name] = hits.labels

    def result(self, skipped: Sequence[str]) -> Nearest:
        score, cosine, index = self.lists
        plain = [[self.plain.get((i, j), np.nan) for j in row] for i, row in enumerate(index)]
        starts = np.cumsum([0, *(len(ids) for ids in self.ids)])
        run = np.where(index < 0, -1, np.searchsorted(starts, index, side="right") - 1)
        every = np.concatenate(self.ids)
        names = distinct_names([s["name"] for s in self.searched], [s["address"] for s in self.searched])
        p = np.full(score.shape, np.nan)
        if self.turns:
            for rank in range(self.k):
                p[:, rank] = (1 + (self.largest >= score[:, rank] - _ROUNDING).sum(axis=0)) / (1 + self.turns)
        return Nearest(
            vectors=self.vectors,
            searched=tuple(s | {"name": name} for s, name in zip(self.searched, names, strict=True)),
            signed=self.signed,
            run=read_only(run),
            latent_id=read_only(np.where(index < 0, -1, every[index])),
            cosine=read_only(cosine.clip(-1.0, 1.0)),
            plain_cosine=read_only(np.array(plain)),
            p_value=read_only(np.where(index < 0, np.nan, p)),
            expected=read_only(self.largest.mean(axis=0) if self.turns else np.full(len(score), np.nan)),
            turns=self.turns,
            labels=tuple(self.labels.get(int(j), {}) for j in index[index >= 0]),
            sources=sources_of(self.labeled),
            skipped=tuple(skipped),
            caveats=few(self.caveats),
        )


def nearest(
    vectors: Any,
    targets: Any,
    k: int = K,
    *,
    signed: bool = True,
    turns: int | None = None,
    seed: int = 0,
    latents: Latents = "alive",
    drop_bad: bool = False,
    allow_mismatch: bool = False,
    prepare: Callable[[Dictionary], Dictionary] | None = None,
    unembed: Unembedding | str | Path | None = None,
    offline: bool = False,
    echo: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Nearest:
    """Find the latents closest to each vector among all latents of one or many dictionaries.

    Hits are in exact order: descending cosine (|cos| if not signed), then the order of the dictionaries, then the row.
    Dictionaries are read one after another and dropped, so the largest determines the memory needed. P-values refer to
    the largest cosine over all candidates (Westfall & Young 1993): each dictionary is turned by orthogonal maps that
    preserve its mean and second moment. (Turning the vectors instead is equivalent, and cheaper for a few vectors.) A
    p-value is valid for vectors whose distribution does not change under these turns.

    Args:
        vectors: an array [d] or [n, d], a `Dictionary`, a file of vectors, or `RUN::latent=12`; see
            `sources.vectors.as_vectors`.
        targets: one target or several: anything `compare` takes, a folder or Hugging Face repository with many
            dictionaries, or an address with a pattern such as `layers.{0..11}`. In a folder, dictionaries that do not
            fit are skipped and listed in the result.
        k: number of latents per vector, 1…64.
        signed: False ranks by |cos|.
        turns: number of random turns; 0 skips p-values. None means 999, or fewer (at least 19) for over ten vectors.
        seed: seed of the random turns.
        latents: "alive" leaves out latents known to be dead.
        drop_bad: leave out latents without a direction, instead of raising.
        allow_mismatch: permit a model or hook point other than the vectors' (known only for `RUN::latent=…`).
        prepare: applied to each dictionary after reading, for example to map it (`sae_geometry.mapped`).
        unembed: the model used to label hits with the tokens that they promote, as in `read_tokens`; by default hits
            have the labels of their dictionaries.
        offline, echo, progress: as in `load`.

    Raises:
        ValueError: k out of range, a negative number of turns, different widths, or different spaces.
        SourceError: the vectors or a target cannot be read, as for `load`.

    Example:
        >>> import sae_geometry as sg
        >>> n = sg.nearest("demo:local-seed0::latent=7", ["demo:local-seed0", "demo:local-seed1"], k=2)
        >>> n.latent_id[0, 0].item(), round(n.cosine[0, 0].item(), 4)
        (7, 1.0)
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k (the number of latents per vector) must be from 1 to {MAX_K}; got {k}")
    if turns is not None and turns < 0:
        raise ValueError(f"turns (the number of times each dictionary is turned) must be 0 or more; got {turns}")
    source = as_vectors(vectors, offline=offline, echo=echo, progress=progress)
    context = Context(offline, echo, progress)
    if turns is None:
        turns = max(_LEAST_TURNS, min(_MOST_TURNS, _TURNED_VECTORS // source.n_latents))
    unembedding = read_unembedding(unembed, context) if isinstance(unembed, str | Path) else unembed
    search, skipped = _Search(source, k, signed, turns, seed, unembedding), list[str]()
    places = list(_places(targets, context))
    for at, (place, among_many) in enumerate(places):
        units: list[tuple[Any, Bundle | None]] = []
        with _skipping(among_many, place, skipped):
            units += dictionaries_at(place, context) if isinstance(place, str | Path) else [(place, None)]
        for i, (unit, bundle) in enumerate(units):
            with _skipping(among_many or len(units) > 1, unit, skipped):
                if bundle is None:
                    d = as_dictionary(unit, latents, drop_bad=drop_bad)
                else:
                    d = _read(unit, bundle, latents, drop_bad, context)
                d = d if prepare is None else prepare(d)
                search.caveats += _checked(source, d, allow_mismatch)
                if unembedding is not None:
                    require_readable(unmapped(d), unembedding)
                search.add(d, _share_of(progress, at + i / len(units), len(units), len(places)))
                del d  # Free the memory before the next dictionary is read.
    if not search.searched:
        raise ValueError(f"no dictionary could be searched: {[*skipped, 'no dictionary was given'][0]}")
    return search.result(skipped)


def _places(targets: Any, context: Context) -> Iterator[tuple[Any, bool]]:
    """Yield each target to search, and whether it may be skipped because it is one of many in a folder."""
    one = isinstance(targets, str | Path | Dictionary | Mapping) or hasattr(targets, "shape")
    for target in [targets] if one or not isinstance(targets, Iterable) else targets:
        if not isinstance(target, str | Path):
            yield target, False
            continue
        for address in expanded(target) if isinstance(target, str) else [target]:
            places = checkpoints_at(address, context)
            yield from ((place, len(places) > 1) for place in places)


@contextmanager
def _skipping(may_skip: bool, what: Any, skipped: list[str]) -> Iterator[None]:
    try:
        yield
    except (SourceError, ValueError) as error:
        if not may_skip:
            raise
        skipped.append(f"{what}: {error}")


def _read(address: Address, bundle: Bundle, latents: Latents, drop_bad: bool, context: Context) -> Dictionary:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrientationWarning)  # The dictionary's notes contain this warning.
        return read(address, bundle, latents, context, drop_bad=drop_bad)


def _checked(source: Dictionary, d: Dictionary, allow_mismatch: bool) -> list[str]:
    """Return the caveats of comparing the vectors with a dictionary.

    Raises:
        ValueError: different widths, or spaces that are known to differ.
    """
    notes = [f"{d.name}: {note}" for note in d.notes]
    if source.d_in != d.d_in:
        transposed = source.n_latents == d.d_in
        raise ValueError(
            f"{source.name!r} holds vectors of {source.d_in:,} coordinates, but the directions of {d.name!r} have "
            f"{d.d_in:,}; {'pass the transpose, one vector per row' if transposed else 'cosines are undefined'}"
        )
    if source.model is None and source.hook_point is None:
        return [*notes, f"unknown model and hook point of {source.name!r} are assumed to be those of the dictionaries"]
    return [*notes, *require_same_space(source, d, allow_mismatch)]


def _share_of(progress: Progress | None, before: float, parts: int, places: int) -> Callable[[float], None] | None:
    """Return a callback that converts the progress within one dictionary to the progress over all targets."""
    if progress is None:
        return None
    return lambda share: progress("dictionaries", (before + share / parts) / places)
