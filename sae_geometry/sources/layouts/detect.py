"""Detect the dictionaries in one table of tensors, with their layouts, latent axes and keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.errors import LayoutError
from sae_geometry.sources.files.tensor_file import Entry
from sae_geometry.sources.layouts.config import lookup
from sae_geometry.sources.layouts.places import layer_named
from sae_geometry.sources.layouts.table import (
    BARE,
    ENCODER_SIDE,
    LAYOUTS,
    N_LATENTS_CONFIG,
    PER_COORDINATE,
    PER_LATENT,
    THRESHOLDS,
    TRANSPOSED,
    Layout,
)

_MAX_OUTPUTS = 4096  # maximum number of outputs of all decoders in a table
# To rule out most names quickly, this pattern matches the decoders of all layouts.
ANY_DECODER = re.compile("|".join(re.sub(r"\?P<\w+>", "?:", layout.decoder) for layout in LAYOUTS))
_NUMBERED = re.compile(r"(?:^|layer[_.-]?)(\d{1,9})$")


@dataclass(frozen=True)
class Slab:
    """An [n_latents, width] part of a stored tensor.

    Attributes:
        index, at: indices on the "o" and "s" axes of the tensor; None if it has no such axis.
        out: output (layer or model) that the part belongs to; None if there is only one.
    """

    key: str
    axes: str
    index: int | None = None
    out: int | None = None
    at: int | None = None


@dataclass(frozen=True)
class Site:
    """Location of one dictionary in a file: its layout and the keys of its tensors.

    Attributes:
        decoder, encoder: slabs, in the order of their outputs.
        hook: hook point in the keys, spelled with dots; None if the keys contain no hook point.
        source: layer that a cross-layer transcoder's latents read from; None for other dictionaries.
        layer: index in tensors that stack several dictionaries; None if there is no stack.
        member: name of the table with this dictionary, if several tables contain dictionaries; else None.
        encoder_bias, …, mixture: keys of further tensors; None if absent.
        assumed: why the orientation is an assumption; None if names or sizes determine it.
        convention: note of the layout for the user, for example on axes that names and sizes leave open.
    """

    layout: Layout
    n_latents: int
    decoder: tuple[Slab, ...]
    encoder: tuple[Slab, ...] = ()
    hook: str | None = None
    source: int | None = None
    layer: int | None = None
    member: str | None = None
    encoder_bias: str | None = None
    threshold: str | None = None
    decoder_bias: str | None = None
    frequency: str | None = None
    log_scale: str | None = None
    mixture: tuple[str, str] | None = None
    assumed: str | None = None
    convention: str | None = None

    @property
    def choice(self) -> str:
        """The text after `::` in an address that selects this site."""
        parts = [name] if (name := self.member or self.hook) else []
        parts += [f"{k}={v}" for k, v in (("source", self.source), ("layer", self.layer)) if v is not None]
        return "::".join(parts)

    @property
    def place(self) -> int | None:
        """The N of `::layer=N` that selects this site: its index in a stack, or the number in the name of its table."""
        if self.layer is not None or self.member is None or any(s.out is not None for s in self.decoder):
            return self.layer
        numbered = _NUMBERED.search(self.member)
        return int(numbered[1]) if numbered else None


@dataclass(frozen=True)
class Table:
    """A table of tensors in a file, by their names within the table.

    Attributes:
        entries: shape (without the axes in `leads`) and type, by name.
        keys: key of the tensor in the file, by name.
        leads: letters of the leading axes that were removed ("1" or "s"), by name.
    """

    entries: Mapping[str, Entry]
    keys: Mapping[str, str]
    leads: Mapping[str, str]
    read: Callable[[str], Tensor]
    file: str
    container: str


def sites_in(table: Table, config: Mapping[str, Any], latent_axis: LatentAxis | None) -> tuple[Site, ...]:
    """Return all dictionaries in a table according to the first layout that fits; an empty tuple if none fits."""
    search = _Search(table, config, latent_axis)
    for layout in LAYOUTS:
        if search.concerns(layout) and (sites := tuple(search.sites(layout))):
            if layout.refusal is not None:
                raise LayoutError(f"{table.file} is {layout.refusal}")
            return sites
    return ()


class _Search:
    """Search for dictionaries in one table of tensors, with each layout in turn."""

    def __init__(self, table: Table, config: Mapping[str, Any], latent_axis: LatentAxis | None) -> None:
        self.table = table
        self.entries = table.entries
        self.able = [(name, entry) for name, entry in table.entries.items() if ANY_DECODER.fullmatch(name)]
        self.config = config
        self.latent_axis = latent_axis
        stated = [v for path in N_LATENTS_CONFIG if type(v := lookup(config, path)) is int]
        self.encoder_side = self._length(ENCODER_SIDE)
        self.n_latents = self.encoder_side or self._length(PER_LATENT) or (stated[0] if stated else None)
        self.d_out = self._length(PER_COORDINATE)

    def _length(self, keys: tuple[str, ...]) -> int | None:
        """Return the first length above 1 of the vectors at `keys`, or else of the rows of matrices, or else None."""
        shapes = [self.entries[k].shape for k in keys if k in self.entries]
        return next((s[-1] for n_axes in (1, 2) for s in shapes if len(s) == n_axes and s[-1] > 1), None)

    def concerns(self, layout: Layout) -> bool:
        """Return whether the container, configuration and keys of the file meet the conditions of a layout."""
        return (
            layout.container in (None, self.table.container)
            and (layout.config is None or lookup(self.config, layout.config) is not None)
            and (not layout.any_of or any(k in self.entries for k in layout.any_of))
        )

    def sites(self, layout: Layout) -> Iterator[Site]:
        found: list[tuple[str, dict[str, str]]] = []
        for name, entry in self.able:
            match = re.fullmatch(layout.decoder, name)
            if match is None or len(entry.shape) != len(layout.decoder_axes) or 0 in entry.shape:
                continue
            if entry.dtype.is_floating_point and all(
                k.format(**match.groupdict()) in self.entries for k in layout.also
            ):
                found.append((name, match.groupdict()))
        outputs = sum(self.entries[name].shape[layout.decoder_axes.find("o")] for name, _ in found)
        if "o" in layout.decoder_axes and outputs > _MAX_OUTPUTS:
            raise LayoutError(
                f"{self.table.file}: its decoders have {outputs:,} outputs, more than {_MAX_OUTPUTS:,}; refused"
            )
        if found and "into" in found[0][1]:
            yield from self._by_source(layout, found)
        elif "s" in layout.decoder_axes:
            yield from (site for name, _ in found for site in self._by_layer(layout, name))
        else:
            for name, groups in sorted(found, key=lambda item: (_source(item[1]) or 0, item[0])):
                site = self._site(layout, name, groups)
                if site is not None:
                    yield site

    def _site(self, layout: Layout, name: str, groups: Mapping[str, str]) -> Site | None:
        shape, axes = self.entries[name].shape, layout.decoder_axes
        square = len(shape) == 2 and shape[0] == shape[1]
        if layout.square_suffix and not (square and self.table.file.endswith(layout.square_suffix)):
            return None
        if any(letter == "1" and n != 1 for letter, n in zip(axes, shape, strict=True)):
            return None
        turned = self.latent_axis is not None and len(shape) == 2 and axes[self.latent_axis] != "n"
        axes = axes[::-1] if turned else axes
        n, d = shape[axes.index("n")], shape[axes.index("d")]
        sizes_tell = self.latent_axis is None and layout.refusal is None and not groups
        if sizes_tell and not self._sizes_agree(shape, axes):
            return None
        encoder, encoder_axes = self._encoder(layout, groups, n, turned)
        if encoder is not None and not encoder_axes:
            return None
        reads = d if encoder is None else self.entries[encoder].shape[encoder_axes.index("d")]
        if self.latent_axis is None:
            if not layout.fixed and reads != d and self.encoder_side is None and "o" not in axes:
                return None  # Without a bias, only equal widths would show the axes.
            if not self._biases_fit(layout, groups, n, {d, reads}):
                return None
        spelled = groups.get("site", "").replace("-", ".")
        hook = spelled if layer_named(spelled) is not None else None
        mixture = layout.mixture
        if mixture is not None and not self._are_factors(mixture, n, d):
            return None
        return Site(
            layout,
            n,
            self._slabs(name, axes, int(groups.get("source", 0))),
            () if encoder is None else self._slabs(encoder, encoder_axes, 0),
            hook=hook,
            source=_source(groups),
            member=None if hook else groups.get("site"),
            encoder_bias=self._present(layout.encoder_bias, groups),
            threshold=self._present((*THRESHOLDS, *(f"{{site}}.{t}" for t in THRESHOLDS if "site" in groups)), groups),
            decoder_bias=self._present(layout.decoder_bias, groups),
            frequency=self._present(layout.frequency, groups),
            log_scale=self._present(layout.log_scale, groups),
            mixture=None if mixture is None else (self.table.keys[mixture[0]], self.table.keys[mixture[1]]),
            assumed=self._assumed(layout, shape, axes),
            convention=self._convention(layout, n, d),
        )

    def _convention(self, layout: Layout, n: int, d: int) -> str | None:
        """Return the note of a layout, and prepend a question if the rows of a bare array look like dimensions."""
        if self.latent_axis is not None or layout.note is None:
            return None
        turned = n < d or (_is_usual_width(n) and not _is_usual_width(d))
        return f"{TRANSPOSED} {layout.note}" if turned and BARE in layout.note else layout.note

    def _sizes_agree(self, shape: tuple[int, ...], axes: str) -> bool:
        """Return whether these axes of the decoder agree with the other tensors and the configuration."""
        n, d = shape[axes.index("n")], shape[axes.index("d")]
        if self.encoder_side is not None:
            return n == self.encoder_side
        if "o" in axes:  # Expect more latents than outputs, and in "ond" at least as many as dimensions.
            return n > shape[axes.index("o")] and (axes != "ond" or n >= d)
        if self.n_latents in (n, d):
            return n == self.n_latents
        return self.d_out not in (n, d) or d == self.d_out

    def _biases_fit(self, layout: Layout, groups: Mapping[str, str], n: int, widths: set[int]) -> bool:
        """Return whether the lengths of all biases and thresholds suit `n` latents and these widths."""
        of_decoder = {n, *widths} if layout.fixed else widths  # If names fix the axes, "bias" may be the encoder's.
        for names, lengths in ((layout.encoder_bias, {n}), (THRESHOLDS, {n}), (layout.decoder_bias, of_decoder)):
            present = (self.entries[k].shape for name in names if (k := name.format(**groups)) in self.entries)
            shape = next(present, ())
            if len(shape) == 1 and shape[0] not in {1, *lengths} and "o" not in layout.decoder_axes:
                return False
            if len(shape) == 2 and layout.decoder_axes == "nod" and names is layout.encoder_bias:
                return False  # Only a stack of dictionaries has a bias with two axes.
        return True

    def _are_factors(self, mixture: tuple[str, str], n: int, d: int) -> bool:
        w, c = (self.entries[name] for name in mixture)
        return (
            len(w.shape) == len(c.shape) == 2
            and w.dtype.is_floating_point
            and c.dtype.is_floating_point
            and (w.shape[0], c.shape[1]) == (n, d)
            and w.shape[1] == c.shape[0]
        )

    def _encoder(self, layout: Layout, groups: Mapping[str, str], n: int, turned: bool) -> tuple[str | None, str]:
        """Return the key and axes of the encoder; the axes are "" if its shape contradicts the decoder."""
        name = layout.encoder.format(**groups) if layout.encoder else None
        if name is None or name not in self.entries:
            return None, ""
        if layout.deeper and any(re.fullmatch(layout.deeper, other) for other in self.entries):
            return None, ""
        shape, axes = self.entries[name].shape, layout.encoder_axes
        if len(shape) != len(axes):
            return name, ""
        axes = axes[::-1] if turned and len(axes) == 2 else axes
        if shape[axes.index("n")] == n:
            return name, axes
        other = axes[::-1] if self.latent_axis is not None and len(axes) == 2 else ""
        return name, other if other and shape[other.index("n")] == n else ""

    def _assumed(self, layout: Layout, shape: tuple[int, ...], axes: str) -> str | None:
        if layout.fixed or self.latent_axis is not None or layout.square_suffix or len(shape) != 2:
            return None
        square = shape[0] == shape[1]
        if not square and (self.n_latents in shape or self.d_out in shape):
            return None
        why = "the decoder is square" if square else "no other tensor shows which axis of the decoder indexes latents"
        return (
            f"{why}: axis {axes.index('n')} was taken as latents, as {layout.title} stores them; "
            f"latent_axis={axes.index('d')} takes the other axis"
        )

    def _by_source(self, layout: Layout, found: list[tuple[str, dict[str, str]]]) -> Iterator[Site]:
        """Yield the sites of a cross-layer transcoder with a decoder per target layer, for one or all source layers."""
        axes, reached = layout.decoder_axes, dict[int, dict[int, str]]()
        for name, groups in found:
            one = groups.get("source")
            for source in range(self.entries[name].shape[axes.index("o")]) if one is None else [int(one)]:
                reached.setdefault(source, {})[int(groups["into"])] = name
        for source, names in sorted(reached.items()):
            groups, at = {"source": str(source)}, source if "o" in axes else None
            counts = {self.entries[name].shape[axes.index("n")] for name in names.values()}
            n = counts.pop()
            encoder, encoder_axes = self._encoder(layout, groups, n, turned=False)
            if counts or (encoder is not None and not encoder_axes):
                continue
            encoders = () if encoder is None else self._slabs(encoder, encoder_axes, 0)
            yield Site(
                layout,
                n,
                tuple(
                    Slab(self.table.keys[name], self.table.leads[name] + axes, at, into)
                    for into, name in sorted(names.items())
                ),
                encoders if at is None else tuple(replace(slab, out=None) for slab in encoders[at : at + 1]),
                source=source,
                encoder_bias=self._present(layout.encoder_bias, groups),
            )

    def _by_layer(self, layout: Layout, name: str) -> Iterator[Site]:
        """Yield the sites of a cross-layer transcoder whose decoder has axes for source layers and target layers."""
        entry, axes = self.entries[name], layout.decoder_axes
        n_layers, n_outs, n = (entry.shape[axes.index(letter)] for letter in "son")
        encoder = str(layout.encoder)  # Every layout with an "s" axis requires its encoder.
        shape = self.entries[encoder].shape
        if n_layers != n_outs or len(shape) != 3 or (shape[0], shape[2]) != (n_layers, n):
            return
        reached = [list(range(layer, n_outs)) for layer in range(n_layers)]
        mask = self.entries.get(layout.outputs_mask or "")
        if mask is not None and mask.shape == (n_layers, n_outs):
            said = self.table.read(self.table.keys[str(layout.outputs_mask)])
            reached = [[out for out in range(n_outs) if bool(said[layer, out])] for layer in range(n_layers)]
        for layer, outs in enumerate(reached):
            if outs:
                yield Site(
                    layout,
                    n,
                    tuple(Slab(self.table.keys[name], axes, out, out, at=layer) for out in outs),
                    (Slab(self.table.keys[encoder], layout.encoder_axes, at=layer),),
                    source=layer,
                    encoder_bias=self._present(layout.encoder_bias, {}),
                )

    def _slabs(self, name: str, axes: str, first_out: int) -> tuple[Slab, ...]:
        key, spelled = self.table.keys[name], self.table.leads[name] + axes
        if "o" not in axes:
            return (Slab(key, spelled),)
        n_outs = self.entries[name].shape[axes.index("o")]
        return tuple(Slab(key, spelled, i, first_out + i) for i in range(n_outs))

    def _present(self, names: tuple[str, ...], groups: Mapping[str, str]) -> str | None:
        return next((self.table.keys[k] for name in names if (k := name.format(**groups)) in self.entries), None)


def _is_usual_width(d: int) -> bool:
    """Return whether a width is common for residual streams: a multiple of 64 between 512 and 8192."""
    return 512 <= d <= 8192 and d % 64 == 0


def _source(groups: Mapping[str, str]) -> int | None:
    number = groups.get("source", groups.get("reads"))
    return None if number is None else int(number)
