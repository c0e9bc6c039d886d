"""Finding the dictionaries in a file: which layout its tensors follow, which axis counts latents, what lies where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sae_geometry.sources.errors import LayoutError
from sae_geometry.sources.files.tensor_file import TensorFile
from sae_geometry.sources.layouts.config import lookup
from sae_geometry.sources.layouts.table import LAYOUTS, N_LATENTS_CONFIG, PER_COORDINATE, PER_LATENT, Layout

LatentAxis = Literal[0, 1]
_MAX_LISTED = 12


@dataclass(frozen=True)
class Slab:
    """One [n_latents, width] piece of a stored tensor.

    Attributes:
        key: the tensor.
        axes: its axes, in the letters of `formats`.
        index: the place on its "o" axis; None if it has none.
        out: which output (layer or model) the piece belongs to; None where there is only one.
    """

    key: str
    axes: str
    index: int | None = None
    out: int | None = None


@dataclass(frozen=True)
class Site:
    """One dictionary in a file.

    Attributes:
        layout: the row of the table it follows.
        n_latents: how many latents.
        decoder, encoder: the pieces, in the order of their outputs.
        hook: the hook point that its keys name, with dots; None where they name none.
        source: the layer a cross-layer transcoder's latents read from; None elsewhere.
        encoder_bias, decoder_bias: keys, where present.
        assumed: why the orientation is an assumption; None where names or sizes prove it.
        convention: the documented convention by which it was read, where that is all there is to go by.
    """

    layout: Layout
    n_latents: int
    decoder: tuple[Slab, ...]
    encoder: tuple[Slab, ...] = ()
    hook: str | None = None
    source: int | None = None
    encoder_bias: str | None = None
    decoder_bias: str | None = None
    assumed: str | None = None
    convention: str | None = None

    @property
    def choice(self) -> str:
        """What to write after `::` to choose it."""
        return self.hook or ("" if self.source is None else f"source={self.source}")


def find_sites(file: TensorFile, config: Mapping[str, Any], latent_axis: LatentAxis | None = None) -> tuple[Site, ...]:
    """Every dictionary in a file, by the first row of the table that fits.

    Args:
        file: the tensors.
        config: the configuration beside them; {} if there is none.
        latent_axis: the axis of the stored two-axis decoder that counts latents, if the caller says so.

    Raises:
        LayoutError: no row fits; the message lists what is there and the call that would do.
    """
    search = _Search(file, config, latent_axis)
    for layout in LAYOUTS:
        if search.concerns(layout):
            sites = tuple(search.sites(layout))
            if sites:
                return sites
    raise LayoutError(_unknown(file))


class _Search:
    """One file against the rows of the table."""

    def __init__(self, file: TensorFile, config: Mapping[str, Any], latent_axis: LatentAxis | None) -> None:
        self.entries = file.entries
        self.name = file.path.name
        self.container = file.container
        self.config = config
        self.latent_axis = latent_axis
        stated = [v for path in N_LATENTS_CONFIG if type(v := lookup(config, path)) is int]
        self.n_latents = self._length(PER_LATENT) or (stated[0] if stated else None)
        self.d_out = self._length(PER_COORDINATE)

    def _length(self, keys: tuple[str, ...]) -> int | None:
        lengths = [self.entries[k].shape[0] for k in keys if k in self.entries and len(self.entries[k].shape) == 1]
        return lengths[0] if lengths else None

    def concerns(self, layout: Layout) -> bool:
        """Whether what is beside the decoder allows this row."""
        return (
            layout.container in (None, self.container)
            and (layout.config is None or lookup(self.config, layout.config) is not None)
            and (not layout.any_of or any(k in self.entries for k in layout.any_of))
        )

    def sites(self, layout: Layout) -> Iterator[Site]:
        found: list[tuple[str, dict[str, str]]] = []
        for key, entry in self.entries.items():
            match = re.fullmatch(layout.decoder, key)
            if match is None or len(entry.shape) != len(layout.decoder_axes) or not entry.dtype.is_floating_point:
                continue
            if all(k.format(**match.groupdict()) in self.entries for k in layout.also):
                found.append((key, match.groupdict()))
        if found and "into" in found[0][1]:
            yield from self._by_target(layout, {int(groups["into"]): key for key, groups in found})
            return
        for key, groups in sorted(found, key=lambda item: (int(item[1].get("source", 0)), item[0])):
            site = self._site(layout, key, groups)
            if site is not None:
                yield site

    def _site(self, layout: Layout, key: str, groups: Mapping[str, str]) -> Site | None:
        shape, axes = self.entries[key].shape, layout.decoder_axes
        square = len(shape) == 2 and shape[0] == shape[1]
        if layout.square_suffix and not (square and self.name.endswith(layout.square_suffix)):
            return None
        turned = self.latent_axis is not None and len(shape) == 2 and axes[self.latent_axis] != "n"
        axes = axes[::-1] if turned else axes
        n = shape[axes.index("n")]
        if self.latent_axis is None and not self._sizes_agree(shape, axes):
            return None
        encoder_key, encoder_axes = self._encoder(layout, groups, n, turned)
        if encoder_key is not None and not encoder_axes:
            return None
        source = int(groups["source"]) if "source" in groups else None
        return Site(
            layout,
            n,
            _slabs(key, axes, shape, source or 0),
            () if encoder_key is None else _slabs(encoder_key, encoder_axes, self.entries[encoder_key].shape, 0),
            hook=groups["site"].replace("-", ".") if "site" in groups else None,
            source=source,
            encoder_bias=self._present(layout.encoder_bias, groups),
            decoder_bias=self._present(layout.decoder_bias, groups),
            assumed=self._assumed(layout, shape, axes),
            convention=layout.note if self.latent_axis is None else None,
        )

    def _sizes_agree(self, shape: tuple[int, ...], axes: str) -> bool:
        """Whether the one-dimensional tensors (or the configuration) bear the row's axes out, or say nothing."""
        if len(shape) != 2:
            return True
        if self.n_latents in shape:
            return shape[axes.index("n")] == self.n_latents
        return self.d_out not in shape or shape[axes.index("d")] == self.d_out

    def _encoder(self, layout: Layout, groups: Mapping[str, str], n: int, turned: bool) -> tuple[str | None, str]:
        """The encoder's key and axes; axes "" where its sizes contradict the decoder's."""
        key = layout.encoder.format(**groups) if layout.encoder else None
        if key is None or key not in self.entries:
            return None, ""
        shape, axes = self.entries[key].shape, layout.encoder_axes
        if len(shape) != len(axes):
            return key, ""
        axes = axes[::-1] if turned and len(axes) == 2 else axes
        if shape[axes.index("n")] == n:
            return key, axes
        other = axes[::-1] if self.latent_axis is not None and len(axes) == 2 else ""
        return key, other if other and shape[other.index("n")] == n else ""

    def _assumed(self, layout: Layout, shape: tuple[int, ...], axes: str) -> str | None:
        if layout.fixed or self.latent_axis is not None or layout.square_suffix or len(shape) != 2:
            return None
        square = shape[0] == shape[1]
        if not square and (self.n_latents in shape or self.d_out in shape):
            return None
        why = "the decoder is square" if square else "nothing beside the decoder tells its axes apart"
        return (
            f"{why}: axis {axes.index('n')} was taken as latents, as {layout.title} stores them; "
            f"latent_axis={axes.index('d')} takes the other"
        )

    def _by_target(self, layout: Layout, targets: Mapping[int, str]) -> Iterator[Site]:
        """Sites of a transcoder stored by the layer it writes into: W_D.i holds the decoders of sources 0…i."""
        encoder = layout.encoder if layout.encoder in self.entries else None
        for source in range(max(targets) + 1):
            reached = {i: key for i, key in sorted(targets.items()) if source < self.entries[key].shape[0]}
            if not reached:
                continue
            slabs = tuple(Slab(key, layout.decoder_axes, source, i) for i, key in reached.items())
            counts = {self.entries[s.key].shape[layout.decoder_axes.index("n")] for s in slabs}
            has_encoder = encoder is not None and source < self.entries[encoder].shape[0]
            if len(counts) == 1:
                yield Site(
                    layout,
                    counts.pop(),
                    slabs,
                    (Slab(encoder, layout.encoder_axes, source),) if encoder is not None and has_encoder else (),
                    source=source,
                    encoder_bias=self._present(layout.encoder_bias, {}),
                )

    def _present(self, keys: tuple[str, ...], groups: Mapping[str, str]) -> str | None:
        return next((k for key in keys if (k := key.format(**groups)) in self.entries), None)


def _slabs(key: str, axes: str, shape: tuple[int, ...], first_out: int) -> tuple[Slab, ...]:
    if "o" not in axes:
        return (Slab(key, axes),)
    return tuple(Slab(key, axes, i, first_out + i) for i in range(shape[axes.index("o")]))


def _unknown(file: TensorFile) -> str:
    listed = [f"{k} {list(e.shape)} {str(e.dtype).removeprefix('torch.')}" for k, e in file.entries.items()]
    shown = ", ".join(listed[:_MAX_LISTED])
    shown += f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    flat = {k: e for k, e in file.entries.items() if len(e.shape) == 2 and e.dtype.is_floating_point}
    key = max(flat, key=lambda k: flat[k].n_bytes, default=None)
    if key is None:
        return f"{file.path.name} holds no decoder: {shown or 'no tensors at all'}"
    axis = int(flat[key].shape[0] < flat[key].shape[1])
    return (
        f"no known layout fits {file.path.name}, which holds {shown}; if {key!r} is the decoder, call "
        f"sae_geometry.Dictionary.from_decoder(tensors[{key!r}], latent_axis={axis}), where latent_axis is the axis "
        "that counts latents"
    )
