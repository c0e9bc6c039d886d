"""Find the dictionaries in a file, however its tensors are nested: in tables, lists or one stacked tensor.

Prefixes that torch adds to the names of modules are dropped. The outermost table is tried unchanged, without
leading axes of length one, and as a stack of dictionaries; then the tables inside are tried in the same way. Tables
with other content (an optimizer's state, the weights of a language model) fit no layout and are skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, takewhile
from typing import Any

from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import few
from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.errors import LayoutError
from sae_geometry.sources.files.tensor_file import Entry, TensorFile
from sae_geometry.sources.layouts.detect import ANY_DECODER, Site, Slab, Table, sites_in
from sae_geometry.sources.layouts.places import names_a_place
from sae_geometry.sources.layouts.table import PER_COORDINATE, PER_LATENT, WRAPPER

_AROUND_MODULES = {
    "_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module",
}  # fmt: skip
_BIASES = {*PER_LATENT, *PER_COORDINATE}
_WRAPPER = re.compile(WRAPPER)
# Tables with these names are skipped, because the moments of an optimizer may have the names of the parameters.
_OF_AN_OPTIMIZER = re.compile(r"optim|exp_avg|moment", re.IGNORECASE)
_MAX_DEPTH = 12
_MAX_STACKED = 1024
_MAX_LISTED = 12
# Tensors with these names are not decoders but encoders, biases, masks, gates, skips, mixing matrices, optimizer
# moments, activations and statistics, inverses and averages, and halves of a decoder (weight norm, pruning, low rank).
_NO_DECODER = re.compile(
    r"enc|embed|bias|^b_|\.b_|mask|mix|gate|skip|thresh|exp_avg|momentum|optim|moment|scale|norm|mean|std|var|cov|attn"
    r"|activ|usage|count|freq|firing|logit|prob|score|simil|cosine|gram|corr|whiten|rotat|pca|proj|assign|lora|decay"
    r"|avg|averag|inv|dead|init|detect|classif|recogni|rout|(?:^|[._])(?:in|to|input|extract(?:or)?|read(?:er)?s?|dual"
    r"|acts?|labels?|grads?|delta|ema|[mv]|keys?|quer(?:y|ies))(?:[._]|$)"
    r"|weight_[gv]$|_orig$|original\d$|(?:^|\.)(?:W_?E|E|W_?[QKV]|W|C|A|M)$",
    re.IGNORECASE,
)
_DECODER = re.compile(
    r"decod|(?:^|[._])w?dec(?:[._\d]|$)|dict|feature|direction|atom|codebook|concept|(?:^|\.)(?:W_?D|D)$", re.IGNORECASE
)

Path = tuple[str, ...]


def find_sites(file: TensorFile, config: Mapping[str, Any], latent_axis: LatentAxis | None = None) -> tuple[Site, ...]:
    """Return all dictionaries in a file; `latent_axis` is the axis of a two-axis decoder that indexes latents."""
    found = list(_found(_outermost(file), config, latent_axis, ()))
    if not found:
        raise LayoutError(_unknown_layout(file))
    return tuple(_named(found))


def _found(
    table: Table, config: Mapping[str, Any], latent_axis: LatentAxis | None, path: Path
) -> Iterator[tuple[Path, Site]]:
    if any(map(ANY_DECODER.fullmatch, table.entries)):
        whole = ((view, [None]) for view in _views(table))
        stacks = ((_sliced(table, n), range(n)) for n in _stack_sizes(table))
        for view, layers in chain[tuple[Table, Sequence[int | None]]](whole, stacks):
            if sites := sites_in(view, config, latent_axis):
                yield from ((path, site if i is None else _at(site, i)) for i in layers for site in sites)
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
    """Return each key by its name without PyTorch's prefixes for modules, or by itself if such names coincide."""
    keys = list(keys)
    names = {".".join(p for p in key.split(".") if p not in _AROUND_MODULES) or key: key for key in keys}
    return names if len(names) == len(keys) else {key: key for key in keys}


def _is_bias(name: str) -> bool:
    return any(name == bias or name.endswith(f".{bias}") for bias in _BIASES)


def _squeezed(entry: Entry, n_axes: int) -> Entry:
    """Drop leading axes of length one until only `n_axes` axes are left."""
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
    """Return the lengths of leading axes that may index dictionaries, most frequent lengths first."""
    stacked = (_squeezed(e, 3).shape for e in table.entries.values() if len(e.shape) > 2 and e.dtype.is_floating_point)
    counts = Counter(shape[0] for shape in stacked if len(shape) == 3)
    return [n for n, _ in counts.most_common(4) if 1 < n <= _MAX_STACKED]


def _sliced(table: Table, n_stacked: int) -> Table:
    """Return the table of one of `n_stacked` dictionaries, without the leading axis that indexes them."""
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
    """Yield the sites with the names of their tables, if these differ; a name that is a hook point becomes `hook`."""
    paths = {path for path, _ in found}
    steps = zip(*paths, strict=False)
    wrappers = list(takewhile(lambda names: len(set(names)) == 1 and _WRAPPER.fullmatch(names[0]), steps))
    for path, site in found:
        name = ".".join(path[len(wrappers) :])
        hook = site.hook or (name.replace("-", ".") if names_a_place(name.replace("-", ".")) else None)
        outer = name if len(paths) > 1 and name != hook else ""
        yield replace(site, hook=hook, member=".".join(p for p in (outer, site.member) if p) or None)


def _unknown_layout(file: TensorFile) -> str:
    """Return a message that lists the tensors and suggests `Dictionary.from_decoder`, if possible with a tensor's name.

    If names are ambiguous, no tensor is suggested: an encoder read as a decoder would give plausible, wrong numbers.
    """
    listed = [f"{shown(k, 80)} {list(e.shape)} {str(e.dtype).removeprefix('torch.')}" for k, e in file.entries.items()]
    listed += [f"{shown(k, 80)} of type {kind}, which torch does not have" for k, kind in file.unread.items()]
    holds = ", ".join(few(listed, _MAX_LISTED))
    flat = {
        k: e for k, e in file.entries.items() if len(e.shape) == 2 and 0 not in e.shape and e.dtype.is_floating_point
    }
    name = file.path.name
    if not flat:
        wanted = "holds no decoder (a floating-point tensor with two axes)" if holds else "holds no decoder"
        return f"{name} {wanted}: {holds or 'no tensors at all'}"
    says = f"no known layout fits {name}, which holds {holds}"
    call = "sae_geometry.Dictionary.from_decoder(tensors[{!r}], latent_axis={})"
    whether = "where latent_axis is the axis that indexes latents"
    named = [k for k in flat if _DECODER.search(k) and not _NO_DECODER.search(k) and len(set(flat[k].shape)) == 2]
    if len(named) == 1:  # Several such tensors may be parts or copies of a decoder.
        key, (rows, columns) = named[0], flat[named[0]].shape
        return f"{says}; if {key!r} is the decoder, call {call.format(key, int(rows < columns))}, {whether}"
    why = f"{len(named)} of them are named like decoders or parts of one"
    if not named:
        why = "none of them is named like a decoder (save a decoder tied to the encoder under a separate name)"
    return f"{says}; {why}: pass the decoder to sae_geometry.Dictionary.from_decoder(decoder, latent_axis=…), {whether}"
