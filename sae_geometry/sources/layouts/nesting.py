"""Find the dictionaries in a file, however its tensors are nested: in tables, lists or one stacked tensor.

Names that torch adds around a module are dropped. The outermost table is tried as it is, without leading axes of length
one, and as a stack of dictionaries; then the tables inside it, each in the same way. Tables of other content (an
optimizer's state, the weights of a language model) fit no layout and are skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.errors import LayoutError
from sae_geometry.sources.files.tensor_file import Entry, TensorFile
from sae_geometry.sources.layouts.detect import ANY_DECODER, Site, Slab, Table, sites_in
from sae_geometry.sources.layouts.places import names_a_place
from sae_geometry.sources.layouts.table import PER_COORDINATE, PER_LATENT, WRAPPER
from sae_geometry.sources.layouts.unknown import unknown_layout

_AROUND_MODULES = {
    "_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module",
}  # fmt: skip
_BIASES = {*PER_LATENT, *PER_COORDINATE}
_WRAPPER = re.compile(WRAPPER)
# An optimizer may store its moments under the names of the parameters, so they fit the same layout.
_OF_AN_OPTIMIZER = re.compile(r"optim|exp_avg|moment", re.IGNORECASE)
_MAX_DEPTH = 12
_MAX_STACKED = 1024

Path = tuple[str, ...]


def find_sites(file: TensorFile, config: Mapping[str, Any], latent_axis: LatentAxis | None = None) -> tuple[Site, ...]:
    """Return every dictionary in a file; `latent_axis` is the one of the stored two-axis decoder, where it is given."""
    found = list(_found(_outermost(file), config, latent_axis, ()))
    if not found:
        raise LayoutError(unknown_layout(file))
    return tuple(_named(found))


def _found(
    table: Table, config: Mapping[str, Any], latent_axis: LatentAxis | None, path: Path
) -> Iterator[tuple[Path, Site]]:
    able = any(map(ANY_DECODER.fullmatch, table.entries))
    for view in _views(table) if able else ():
        sites = sites_in(view, config, latent_axis)
        if sites:
            yield from ((path, site) for site in sites)
            return
    for n_stacked in _stack_sizes(table) if able else ():
        sites = sites_in(_sliced(table, n_stacked), config, latent_axis)
        if sites:
            yield from ((path, _at(site, i)) for i in range(n_stacked) for site in sites)
            return
    if len(path) < _MAX_DEPTH:
        for name, inner in _inside(table):
            yield from _found(inner, config, latent_axis, (*path, name))


def _outermost(file: TensorFile) -> Table:
    keys = _without_wrappers(file.entries)
    entries = {name: file.entries[key] for name, key in keys.items()}
    return Table(
        {name: _squeezed(entry, 1) if _is_bias(name) else entry for name, entry in entries.items()},
        keys, dict.fromkeys(keys, ""), file.read, file.path.name, file.container,
    )  # fmt: skip


def _without_wrappers(keys: Iterable[str]) -> dict[str, str]:
    """Return keys by name, without the prefixes that torch adds to modules; unchanged where two would coincide."""
    keys = list(keys)
    names = {".".join(p for p in key.split(".") if p not in _AROUND_MODULES) or key: key for key in keys}
    return names if len(names) == len(keys) else {key: key for key in keys}


def _is_bias(name: str) -> bool:
    return any(name == bias or name.endswith(f".{bias}") for bias in _BIASES)


def _squeezed(entry: Entry, n_axes: int) -> Entry:
    """Return the entry without leading axes of length one, while more than `n_axes` are left."""
    shape = entry.shape
    while len(shape) > n_axes and shape[0] == 1:
        shape = shape[1:]
    return Entry(shape, entry.dtype)


def _views(table: Table) -> Iterator[Table]:
    yield table
    entries = {name: _squeezed(entry, 2) for name, entry in table.entries.items()}
    dropped = {name: len(table.entries[name].shape) - len(entry.shape) for name, entry in entries.items()}
    if any(dropped.values()):
        yield replace(table, entries=entries, leads={name: "1" * n for name, n in dropped.items()})


def _stack_sizes(table: Table) -> list[int]:
    """Return the lengths of leading axes that may index dictionaries, the most frequent first."""
    stacked = (_squeezed(e, 3).shape for e in table.entries.values() if len(e.shape) > 2 and e.dtype.is_floating_point)
    counts = Counter(shape[0] for shape in stacked if len(shape) == 3)
    return [n for n, _ in counts.most_common(4) if 1 < n <= _MAX_STACKED]


def _sliced(table: Table, n_stacked: int) -> Table:
    """Return the table of one of `n_stacked` dictionaries, whose tensors have a leading axis that indexes them."""
    entries, leads = {}, {}
    for name, entry in table.entries.items():
        shape = _squeezed(entry, 3).shape
        stacked = shape[:1] == (n_stacked,) and (len(shape) > 2 or (len(shape) == 2 and _is_bias(name)))
        entries[name] = Entry(shape[1:], entry.dtype) if stacked else entry
        leads[name] = "1" * (len(entry.shape) - len(shape)) + "s" if stacked else ""
    return replace(table, entries=entries, leads=leads)


def _at(site: Site, layer: int) -> Site:
    def placed(slabs: tuple[Slab, ...]) -> tuple[Slab, ...]:
        return tuple(replace(s, at=layer) if "s" in s.axes else s for s in slabs)

    return replace(site, layer=layer, decoder=placed(site.decoder), encoder=placed(site.encoder))


def _inside(table: Table) -> Iterator[tuple[str, Table]]:
    groups: dict[str, dict[str, str]] = {}
    for name in table.entries:
        first, dot, rest = name.partition(".")
        if dot and not _OF_AN_OPTIMIZER.match(first):
            groups.setdefault(first, {})[rest] = name
    for first, names in groups.items():
        yield (
            first,
            replace(
                table,
                entries={rest: table.entries[name] for rest, name in names.items()},
                keys={rest: table.keys[name] for rest, name in names.items()},
                leads={rest: table.leads[name] for rest, name in names.items()},
            ),
        )


def _named(found: list[tuple[Path, Site]]) -> Iterator[Site]:
    """Yield the sites, named by their tables where those differ; a table named after a hook point sets the hook."""
    paths = {path for path, _ in found}
    steps = zip(*paths, strict=False)
    wrappers = list(takewhile(lambda names: len(set(names)) == 1 and _WRAPPER.fullmatch(names[0]), steps))
    for path, site in found:
        name = ".".join(path[len(wrappers) :])
        hook = site.hook or (name.replace("-", ".") if names_a_place(name.replace("-", ".")) else None)
        outer = name if len(paths) > 1 and name != hook else ""
        yield replace(site, hook=hook, member=".".join(p for p in (outer, site.member) if p) or None)
