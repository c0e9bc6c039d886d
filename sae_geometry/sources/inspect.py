"""What is at an address, in full: every tensor, every dictionary, and how each was understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Context, Echo
from sae_geometry.sources.layouts.detect import LatentAxis, Site, Slab
from sae_geometry.sources.layouts.hook_points import space_of
from sae_geometry.sources.layouts.read import Opened, is_transcoder, open_bundle, read_dictionary
from sae_geometry.sources.resolve import parse_address, resolve

_AXES = {"n": "n_latents", "d": "width", "o": "outputs"}


@dataclass(frozen=True)
class StoredShape:
    """One tensor of the file."""

    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Norms:
    """Euclidean norms of the decoder rows in the file's own units; `n_bad` rows are zero or not finite."""

    lowest: float
    mean: float
    highest: float
    n_bad: int


@dataclass(frozen=True)
class FoundDictionary:
    """One dictionary of the file.

    Attributes:
        choice: what to write after `::` to choose it; "" where it is the only one.
        n_latents, d_out: its size; d_out is the width of one output.
        outputs: the layers or models that its decoder writes to; empty where there is one.
        output_kind: "layer" or "model".
        decoder, encoder: key and orientation, "W_dec [n_latents, width]"; encoder is None where there is none.
        hook_point_in, hook_point_out: where it reads and writes; out is None where it is the same or unknown.
        transcoder: the decoder writes to another space than the encoder reads from.
        assumed: why the orientation is an assumption; None where it is certain.
        alive: what is known about dead latents; None where the decoder was not read.
        norms: of the decoder rows; None where the decoder was not read.
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
    """What is at an address.

    Attributes:
        address: as resolved.
        files: the weights files on disk.
        container: how they are packed.
        layout, title: the row of the table of layouts, short and for people.
        model: the model's name; None when unknown.
        tensors: everything stored.
        dictionaries: every dictionary found.
        metadata: what else the source said.
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

    def __str__(self) -> str:
        lines = [self.address, f"  layout      {self.layout}: {self.title} ({self.container})"]
        lines.append(f"  model       {self.model or 'unknown'}")
        for d in self.dictionaries:
            lines.append(f"  dictionary  {'::' + d.choice if d.choice else 'the only one'}: {d.n_latents:,} latents")
            lines += [f"    {name:<9} {text}" for name, text in _details(d)]
        lines += [f"  tensor      {t.key} {list(t.shape)} {t.dtype}" for t in self.tensors]
        return "\n".join(lines)


def inspect(
    address: str | Path, *, latent_axis: LatentAxis | None = None, offline: bool = False, echo: Echo | None = None
) -> Inspection:
    """What is at an address, and how it would be read.

    Decoder norms and alive latents are given where the address means one dictionary; where it holds several, choose
    one with `::` to see them.

    Args:
        address: as `load` takes it.
        latent_axis: which axis of the stored decoder counts latents, where the file cannot tell.
        offline: touch no network.
        echo: called with what the address was resolved to.

    Raises:
        SourceError: as `load`.

    Example:
        >>> from sae_geometry.sources import inspect
        >>> inspect("demo:local-seed0").dictionaries[0].decoder
        'W_dec [n_latents, width]'
    """
    parsed = parse_address(address)
    bundle = resolve(parsed, Context(offline, echo))
    opened = open_bundle(bundle, latent_axis)
    sites = [s for s in opened.sites if _meant(s, parsed.selection)] or list(opened.sites)
    found = tuple(_found(opened, site, read=len(sites) == 1, selection=parsed.selection) for site in sites)
    return Inspection(
        bundle.address,
        bundle.weights,
        opened.file.container,
        opened.sites[0].layout.name,
        opened.sites[0].layout.title,
        space_of(opened.sites[0], opened.config, bundle.where).model,
        tuple(StoredShape(k, e.shape, str(e.dtype).removeprefix("torch.")) for k, e in opened.file.entries.items()),
        found,
        {**opened.file.extras, **bundle.metadata},
    )


def _meant(site: Site, selection: Selection) -> bool:
    by_hook = selection.hook is None or site.hook in (None, selection.hook.replace("-", "."))
    return by_hook and selection.source in (None, site.source)


def _found(opened: Opened, site: Site, *, read: bool, selection: Selection) -> FoundDictionary:
    space = space_of(site, opened.config, opened.bundle.where)
    d = read_dictionary(opened, selection, "all", drop_bad=True, encoder=False) if read else None
    return FoundDictionary(
        choice=site.choice,
        n_latents=site.n_latents,
        d_out=_width(opened, site.decoder[0]),
        outputs=tuple(s.out for s in site.decoder if s.out is not None),
        output_kind=site.layout.out,
        decoder=_spelled(site.decoder),
        encoder=_spelled(site.encoder) if site.encoder else None,
        hook_point_in=space.reads,
        hook_point_out=space.writes,
        transcoder=is_transcoder(site, opened.config),
        assumed=site.assumed,
        alive=None if d is None else d.alive.describe(),
        norms=None
        if d is None
        else Norms(
            float(d.decoder_norms.min()),
            float(d.decoder_norms.mean()),
            float(d.decoder_norms.max()),
            len(d.alive.bad_ids),
        ),
    )


def _width(opened: Opened, slab: Slab) -> int:
    return opened.file.entries[slab.key].shape[slab.axes.index("d")]


def _spelled(slabs: tuple[Slab, ...]) -> str:
    keys = dict.fromkeys(s.key for s in slabs)
    return ", ".join(keys) + f" [{', '.join(_AXES[a] for a in slabs[0].axes)}]"


def _details(d: FoundDictionary) -> list[tuple[str, str]]:
    rows = [("decoder", f"{d.decoder}, width {d.d_out:,}"), ("encoder", d.encoder or "none")]
    rows.append(("hook", d.hook_point_in or "unknown"))
    if d.transcoder:
        rows.append(("kind", f"a transcoder: the decoder lives in output space ({d.hook_point_out or 'hook unknown'})"))
    if d.outputs:
        rows.append(("outputs", f"{d.output_kind}s {', '.join(map(str, d.outputs))}: all concatenated, or "
                     f"::{d.output_kind}=N for one"))  # fmt: skip
    if d.assumed:
        rows.append(("warning", d.assumed))
    if d.alive:
        rows.append(("latents", d.alive))
    if d.norms:
        bad = f"; {d.norms.n_bad:,} zero or not finite" if d.norms.n_bad else ""
        rows.append(("norms", f"{d.norms.lowest:.4g} … {d.norms.highest:.4g}, mean {d.norms.mean:.4g}{bad}"))
    return rows
