"""From files on disk to a `Dictionary`: only the tensors needed, normalised by the one place that normalises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.files.tensor_file import TensorFile, joined, unwrapped
from sae_geometry.sources.layouts.config import first, read_config
from sae_geometry.sources.layouts.detect import LatentAxis, Site, Slab, find_sites
from sae_geometry.sources.layouts.hook_points import space_of

Latents = Literal["alive", "all"]

_MAX_CHOICES = 12
# log10(frequency + 1e-10) of a latent that never fired; one firing in a billion tokens gives −9.
_DEAD_LOG10 = -9.99
_METADATA = {
    "architecture": ("architecture", "trainer.dict_class", "activation", "sae_type", "act_fn"),
    "seed": ("seed", "trainer.seed"),
    "k": ("k", "trainer.k", "top_k"),
    "neuronpedia_id": ("metadata.neuronpedia_id", "neuronpedia_id"),
}


@dataclass(frozen=True)
class Opened:
    """A checkpoint with its dictionaries found, before any numbers are read."""

    bundle: Bundle
    file: TensorFile
    sites: tuple[Site, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Frequencies:
    """Share of tokens on which each latent fires, and whether it is alive; None where unknown."""

    frequency: Tensor | None
    alive: Tensor | None
    source: str


def open_bundle(bundle: Bundle, latent_axis: LatentAxis | None = None) -> Opened:
    """Find the dictionaries of a checkpoint.

    Raises:
        SourceError: a file that cannot be read.
        LayoutError: no decoder that the table knows.
    """
    file = joined([open_tensors(path) for path in bundle.weights])
    config = {**file.metadata, **read_config(bundle.configs), **bundle.config}
    try:
        return Opened(bundle, file, find_sites(file, config, latent_axis), config)
    except LayoutError:
        inner = unwrapped(file)
        if inner is None:
            raise
        return Opened(bundle, inner, find_sites(inner, config, latent_axis), config)


def choose_site(opened: Opened, selection: Selection) -> Site:
    """The site that a selection means.

    Raises:
        LayoutError: none or several fit; the message lists the choices.
    """
    sites = opened.sites
    name, choices = opened.bundle.address, [s.choice for s in sites if s.choice]
    listed = ", ".join(f"::{c}" for c in choices[:_MAX_CHOICES])
    if selection.hook is not None:
        wanted = selection.hook.replace("-", ".")
        if not choices and len(sites) == 1:
            space = space_of(sites[0], opened.config, opened.bundle.where)
            if wanted in {space.reads, space.writes}:
                return sites[0]
            raise LayoutError(f"{name} holds one dictionary, at {space.reads or 'an unknown hook point'}: leave "
                              f"out ::{selection.hook}")  # fmt: skip
        sites = tuple(s for s in sites if s.hook == wanted)
    if selection.source is not None:
        sites = tuple(s for s in sites if s.source == selection.source)
    if len(sites) == 1:
        return sites[0]
    if not sites:
        raise LayoutError(f"{name} holds no {selection}; add one of {listed or 'no selection at all'}")
    raise LayoutError(f"{name} holds {len(opened.sites)} dictionaries; choose one by adding {listed}")


def read_dictionary(
    opened: Opened,
    selection: Selection,
    latents: Latents,
    *,
    name: str | None = None,
    drop_bad: bool = False,
    encoder: bool = True,
) -> Dictionary:
    """The dictionary that a selection means.

    Raises:
        SourceError: an unknown selection, a damaged tensor.
        ValueError: a decoder row without a direction, unless `drop_bad`.
    """
    site, bundle = choose_site(opened, selection), opened.bundle
    decoder_slabs = _chosen(site.decoder, site, selection, bundle.address)
    shared = site.decoder and {s.out for s in site.encoder} == {s.out for s in site.decoder}
    encoder_slabs = _chosen(site.encoder, site, selection, bundle.address) if shared else site.encoder
    space = space_of(site, opened.config, bundle.where, [s.out for s in decoder_slabs])
    lives = _lives(opened, site, space.reads)
    notes = [*bundle.notes, *(n for n in (site.convention, site.assumed) if n)]
    if len(decoder_slabs) > 1:
        outs = ", ".join(str(s.out) for s in decoder_slabs)
        notes.append(f"each row is the concatenation of {site.layout.out}s {outs}, normalised as a whole")
    if is_transcoder(site, opened.config):
        notes.append("a transcoder: the decoder lives in output space")
    decoder = _joined_slabs(opened.file, decoder_slabs)
    dictionary = Dictionary.from_decoder(
        decoder,
        latent_axis=0,
        encoder=_joined_slabs(opened.file, encoder_slabs) if encoder and encoder_slabs else None,
        name=name or bundle.name,
        hook_point=space.reads if len(decoder_slabs) > 1 else space.writes or space.reads,
        model=space.model,
        encoder_bias=_bias(opened.file, site.encoder_bias, site.n_latents, [site.source]),
        decoder_bias=_bias(opened.file, site.decoder_bias, decoder.shape[1], [s.index for s in decoder_slabs]),
        frequency=lives.frequency,
        alive=lives.alive,
        alive_source=lives.source,
        n_tokens=bundle.n_tokens,
        address=f"{bundle.address}{selection}",
        layout=site.layout.name,
        metadata=_metadata(opened, space.reads, space.writes),
        notes=notes,
        drop_bad=drop_bad,
    )
    return dictionary.keep_alive() if latents == "alive" else dictionary


def is_transcoder(site: Site, config: Mapping[str, Any]) -> bool:
    """Whether the decoder writes to another place than the encoder reads from."""
    return bool(
        site.layout.transcoder
        or first(config, ("transcode",), bool)
        or "transcoder" in str(first(config, ("architecture", "model_kind", "sae_type"), str)).lower()
        or first(config, ("metadata.hook_name_out", "hook_name_out"), str)
    )


def _chosen(slabs: tuple[Slab, ...], site: Site, selection: Selection, address: str) -> tuple[Slab, ...]:
    for kind in ("layer", "model"):
        wanted = getattr(selection, kind)
        if wanted is None:
            continue
        outs = [s.out for s in site.decoder if s.out is not None]
        if kind != site.layout.out or not outs:
            raise LayoutError(f"{address} has no several {kind}s to choose from; leave out ::{kind}={wanted}")
        if wanted not in outs:
            raise LayoutError(f"{address} writes to {kind}s {', '.join(map(str, outs))}, not to {wanted}")
        slabs = tuple(s for s in slabs if s.out == wanted)
    return slabs


def _joined_slabs(file: TensorFile, slabs: tuple[Slab, ...]) -> Float[Tensor, "n_latents width"]:
    tensors = {key: file.read(key) for key in {s.key for s in slabs}}
    rows = [_slab(tensors[s.key], s) for s in slabs]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _slab(tensor: Tensor, slab: Slab) -> Float[Tensor, "n_latents width"]:
    axes = slab.axes
    if slab.index is not None:
        tensor = tensor.select(axes.index("o"), slab.index)
        axes = axes.replace("o", "")
    return tensor if axes == "nd" else tensor.T


def _bias(file: TensorFile, key: str | None, n: int, rows: Sequence[int | None]) -> Tensor | None:
    """A bias of `n` numbers, from a stack of biases by row; None where the file's does not fit."""
    if key is None:
        return None
    bias = file.read(key)
    if bias.ndim == 2 and all(i is not None and i < bias.shape[0] for i in rows):
        bias = bias[[i for i in rows if i is not None]].flatten()
    return bias.clone() if bias.shape == (n,) and bias.is_floating_point() else None


def _lives(opened: Opened, site: Site, hook: str | None) -> Frequencies:
    bundle, n = opened.bundle, site.n_latents
    if hook is not None and hook in bundle.alive_ids:
        ids = torch.as_tensor(list(bundle.alive_ids[hook]), dtype=torch.int64)
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < n):
            raise SourceError(f"{bundle.address}: its alive latents go up to {int(ids.max()):,} but the file has {n:,}")
        alive = torch.zeros(n, dtype=torch.bool)
        alive[ids] = True
        return Frequencies(None, alive, bundle.alive_source)
    if bundle.sparsity is not None:
        return _from_sparsity(bundle.sparsity, n)
    key = site.layout.frequency
    if key is not None and key in opened.file.entries:
        values = opened.file.read(key).to(torch.float64).flatten()
        if values.shape[0] == n and bool(torch.isfinite(values).all()) and not bool((values == 1).all()):
            share = values if bool((values <= 1).all()) else None
            return Frequencies(share, values > 0, f"{key} > 0")
    return Frequencies(None, None, "unknown")


def _from_sparsity(path: Any, n: int) -> Frequencies:
    file = open_tensors(path)
    if "sparsity" not in file.entries or file.entries["sparsity"].shape != (n,):
        raise SourceError(
            f"{path.name} does not hold one log-frequency for each of {n:,} latents: is it another SAE's?"
        )
    logs = file.read("sparsity").to(torch.float64)
    if not bool(torch.isfinite(logs).all()):
        raise SourceError(f"{path.name} has NaN or infinite log-frequencies; delete it to load without them")
    dead = logs <= _DEAD_LOG10
    frequency = torch.where(dead, 0.0, (10.0**logs - 1e-10).clamp(0.0, 1.0))
    return Frequencies(frequency, ~dead, f"{path.name}: frequency > 0")


def _metadata(opened: Opened, reads: str | None, writes: str | None) -> dict[str, Any]:
    found = {k: v for k, paths in _METADATA.items() if (v := first(opened.config, paths, object)) is not None}
    plain = {k: v for k, v in found.items() if isinstance(v, str | int | float | bool)}
    hooks = {k: v for k, v in (("hook_point_in", reads), ("hook_point_out", writes)) if v and writes}
    return {**plain, **hooks, **opened.file.extras, **opened.bundle.metadata}
