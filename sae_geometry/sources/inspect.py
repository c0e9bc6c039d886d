"""Descriptions of the tensors and dictionaries at an address, as `load` interprets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted
from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Context, Echo
from sae_geometry.sources.layouts.detect import Site, Slab
from sae_geometry.sources.layouts.hook_points import space_of
from sae_geometry.sources.layouts.read import Opened, is_meant, open_bundle, read_dictionary
from sae_geometry.sources.resolve import parse_address, resolve

_AXES = {"n": "n_latents", "d": "width", "o": "outputs", "s": "layers", "1": "1"}


@dataclass(frozen=True)
class StoredShape:
    """Key, shape and element type of a tensor in a file."""

    key: str
    shape: tuple[int, ...]
    dtype: str


_LONGEST_LINE = 1000  # maximum length of a line in characters


@dataclass(frozen=True)
class Norms:
    """Euclidean norms of the decoder rows as stored; `n_bad` is the number of rows that are zero or not finite."""

    lowest: float
    mean: float
    highest: float
    n_bad: int


@dataclass(frozen=True)
class FoundDictionary:
    """A dictionary in a file, as `load` interprets it.

    Attributes:
        choice: text after `::` that selects this dictionary; "" if there is no other.
        n_latents, d_out: number of latents, and width of one output.
        outputs: layers or models to which the decoder writes; empty if there is only one.
        output_kind: "layer" or "model".
        decoder, encoder: key and orientation, such as "W_dec [n_latents, width]"; `encoder` is None if absent.
        hook_point_in, hook_point_out: hook points of encoder and decoder; `hook_point_out` is None if equal or unknown.
        transcoder: whether the decoder writes to another hook point than the one from which the encoder reads.
        assumed: why the orientation is an assumption; None if it is certain.
        alive: description of the known dead latents; None if the decoder was not read.
        norms: norms of the decoder rows; None if the decoder was not read.
    """

    choice: str
    n_latents: int
    d_out: int
    outputs: tuple[int, ...]
    output_kind: str
    decoder: str
    encoder: str | None
    hook_point_in: str | None
    hook_point_out: str | None
    transcoder: bool
    assumed: str | None
    alive: str | None
    norms: Norms | None


@dataclass(frozen=True)
class Inspection:
    """Description of the tensors and dictionaries at an address.

    Attributes:
        files: weights files on disk.
        layout, title: short name and displayed name of the layout.
        model: name of the model; None if unknown.
        notes: messages on configuration that could not be read or interpreted.
    """

    address: str
    files: tuple[Path, ...]
    container: str
    layout: str
    title: str
    model: str | None
    tensors: tuple[StoredShape, ...]
    dictionaries: tuple[FoundDictionary, ...]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.address, f"  layout      {self.layout}: {self.title} ({self.container})"]
        lines.append(f"  model       {self.model or 'unknown'}")
        for d in self.dictionaries:
            lines.append(
                f"  dictionary  {'::' + d.choice if d.choice else 'the only one'}: {counted(d.n_latents, 'latent')}"
            )
            lines += [f"    {name:<9} {text}" for name, text in _details(d)]
        lines += [f"  tensor      {shown(t.key)} {list(t.shape)} {t.dtype}" for t in self.tensors]
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(shown(line, _LONGEST_LINE) for line in lines)


def inspect(
    address: str | Path, *, latent_axis: LatentAxis | None = None, offline: bool = False, echo: Echo | None = None
) -> Inspection:
    """Describe the tensors and dictionaries at an address, and how `load` would interpret them.

    Decoder norms and alive latents are included only for a single dictionary; select one of several with `::`.

    Args:
        latent_axis: axis of the stored decoder that indexes latents; set it if the file is ambiguous.
        echo: called with the resolved address.

    Example:
        >>> from sae_geometry.sources import inspect
        >>> inspect("demo:local-seed0").dictionaries[0].decoder
        'W_dec [n_latents, width]'
    """
    parsed = parse_address(address)
    latent_axis = parsed.selection.latent_axis if latent_axis is None else latent_axis
    bundle = resolve(parsed, Context(offline, echo))
    opened = open_bundle(bundle, latent_axis)
    sites = [s for s in opened.sites if is_meant(s, parsed.selection)] or list(opened.sites)
    found = tuple(_found(opened, site, read=len(sites) == 1, selection=parsed.selection) for site in sites)
    space = space_of(opened.sites[0], opened.config, bundle.where)
    return Inspection(
        bundle.address,
        bundle.weights,
        opened.file.container,
        opened.sites[0].layout.name,
        opened.sites[0].layout.title,
        space.model,
        tuple(StoredShape(k, e.shape, str(e.dtype).removeprefix("torch.")) for k, e in opened.file.entries.items()),
        found,
        {**opened.file.extras, **bundle.metadata},
        (*opened.notes, *space.notes),
    )


def _found(opened: Opened, site: Site, *, read: bool, selection: Selection) -> FoundDictionary:
    space = space_of(site, opened.config, opened.bundle.where, [s.out for s in site.decoder])
    d, norms = read_dictionary(opened, selection, "all", drop_bad=True, encoder=False) if read else None, None
    if d is not None:
        rows = d.decoder_norms
        norms = Norms(float(rows.min()), float(rows.mean()), float(rows.max()), len(d.alive.bad_ids))
    return FoundDictionary(
        choice=site.choice,
        n_latents=site.n_latents,
        d_out=opened.file.entries[site.decoder[0].key].shape[site.decoder[0].axes.index("d")],
        outputs=tuple(s.out for s in site.decoder if s.out is not None),
        output_kind=site.layout.out,
        decoder=spelled(site.decoder),
        encoder=spelled(site.encoder) if site.encoder else None,
        hook_point_in=space.reads,
        hook_point_out=space.writes,
        transcoder=space.transcoder,
        assumed=site.assumed,
        alive=None if d is None else d.alive.describe(),
        norms=norms,
    )


def spelled(slabs: tuple[Slab, ...]) -> str:
    """Return the keys of stored tensors and the meanings of their axes, for example "W_dec [n_latents, width]"."""
    keys = dict.fromkeys(s.key for s in slabs)
    return ", ".join(keys) + f" [{', '.join(_AXES[a] for a in slabs[0].axes)}]"


def _details(d: FoundDictionary) -> list[tuple[str, str]]:
    rows = [("decoder", f"{d.decoder}, width {d.d_out:,}"), ("encoder", d.encoder or "none")]
    rows.append(("hook", d.hook_point_in or "unknown"))
    if d.transcoder:
        rows.append(("kind", f"a transcoder: directions in the output space ({d.hook_point_out or 'hook unknown'})"))
    if d.outputs:
        rows.append(("outputs", f"{d.output_kind}s {', '.join(map(str, d.outputs))}: all are concatenated; "
                     f"::{d.output_kind}=N selects one"))  # fmt: skip
    if d.assumed:
        rows.append(("warning", d.assumed))
    if d.alive:
        rows.append(("latents", d.alive))
    if d.norms:
        bad = f"; {d.norms.n_bad:,} zero or not finite" if d.norms.n_bad else ""
        rows.append(("norms", f"{d.norms.lowest:.4g} … {d.norms.highest:.4g}, mean {d.norms.mean:.4g}{bad}"))
    return rows
