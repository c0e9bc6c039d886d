"""Read a `Dictionary` from files, loading only the tensors that it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.open import open_tensors, open_weights
from sae_geometry.sources.files.tensor_file import TensorFile
from sae_geometry.sources.layouts.config import bounded, read_config, tables
from sae_geometry.sources.layouts.detect import Site, Slab
from sae_geometry.sources.layouts.filenames import layer_table
from sae_geometry.sources.layouts.hook_points import Space, inputs_are_z_scored, space_of
from sae_geometry.sources.layouts.nesting import find_sites
from sae_geometry.sources.layouts.places import canonical_place
from sae_geometry.sources.plain import is_plain

Latents = Literal["alive", "all"]

_MAX_CHOICES = 12
# log10(frequency + 1e-10) is −10 for a latent that never fires; one firing per 10⁹ tokens gives about −9.
_DEAD_LOG10 = -9.99
_CONFIG_TABLES = ("cfg", "config", "hyper_parameters", "hparams")
_HIGHEST_LOG10 = 1e-6  # log10 of the frequency 1, plus rounding error
# Results record these settings; the values are the names that trainers give to each setting.
_METADATA = {
    "architecture": ("architecture", "dict_class", "activation", "sae_type", "act_fn"),
    "seed": ("seed",),
    "k": ("k", "top_k"),
    "l0": ("l0", "average_l0", "mean_l0"),
    "normalize_activations": ("normalize_activations",),
    "neuronpedia_id": ("neuronpedia_id",),
}


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose dictionaries are located but not yet read; `notes` report unreadable configuration."""

    bundle: Bundle
    file: TensorFile
    sites: tuple[Site, ...]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frequencies:
    """Frequencies and alive latents, as in a `Dictionary`; `note` says why stored frequencies were not used."""

    frequency: Tensor | None = None
    alive: Tensor | None = None
    source: str = "unknown"
    note: str | None = None


def open_bundle(bundle: Bundle, latent_axis: LatentAxis | None = None) -> Opened:
    """Open a checkpoint and locate its dictionaries."""
    return opened(bundle, open_weights(bundle.weights, [layer_table(w.name) for w in bundle.weights]), latent_axis)


def opened(bundle: Bundle, file: TensorFile, latent_axis: LatentAxis | None = None) -> Opened:
    """Locate the dictionaries among tensors that are already open or in memory."""
    said, unread = read_config(bundle.configs)
    config, unbounded = bounded({**_stored_config(file.extras), **file.metadata, **bundle.config, **said})
    return Opened(bundle, file, find_sites(file, config, latent_axis), config, (*unread, *unbounded))


def _stored_config(extras: Mapping[str, object]) -> dict[str, Any]:
    """Return the configuration that a checkpoint stores next to its tensors, as a nested table."""
    config: dict[str, Any] = {}
    for path, value in extras.items():
        first_step, *steps = path.split(".")
        if first_step in _CONFIG_TABLES and steps:
            table = config
            for step in steps[:-1]:
                table = table.setdefault(step, {})
                if not isinstance(table, dict):
                    break
            else:
                table[steps[-1]] = value
    return config


def choose_site(opened: Opened, selection: Selection) -> Site:
    """Return the only site that matches a selection; raise LayoutError if no site or several sites match."""
    sites = tuple(s for s in opened.sites if is_meant(s, selection))
    name, choices = opened.bundle.address, [s.choice for s in opened.sites if s.choice]
    listed = ", ".join(f"::{c}" for c in choices[:_MAX_CHOICES])
    if selection.hook is not None and not choices and len(opened.sites) == 1:
        space = space_of(opened.sites[0], opened.config, opened.bundle.where)
        names = {canonical_place(h) for h in (space.reads, space.writes) if h}
        if canonical_place(selection.hook.replace("-", ".")) in names:
            return opened.sites[0]
        raise LayoutError(f"{name} contains one dictionary, at {space.reads or 'an unknown hook point'}: leave "
                          f"out ::{selection.hook}")  # fmt: skip
    if len(sites) == 1:
        return sites[0]
    if not sites:
        advice = f"add one of {listed}" if listed else "leave out the selection"
        raise LayoutError(f"{name} holds no {selection}; {advice}")
    raise LayoutError(f"{name} contains {len(opened.sites)} dictionaries; choose one by adding {listed}")


def is_meant(site: Site, selection: Selection) -> bool:
    """Return whether a site matches a selection; outputs of its decoder are not considered."""
    hook = selection.hook
    return (
        (hook is None or not {hook, hook.replace("-", ".")}.isdisjoint({site.hook, site.member}))
        and selection.source in (None, site.source)
        and (site.place is None or selection.layer in (None, site.place))
    )


def read_dictionary(
    opened: Opened,
    selection: Selection,
    latents: Latents,
    *,
    name: str | None = None,
    drop_bad: bool = False,
    encoder: bool = True,
) -> Dictionary:
    """Read the selected dictionary; raise ValueError for zero or non-finite decoder rows unless `drop_bad` is set."""
    site, bundle = choose_site(opened, selection), opened.bundle
    decoder_slabs = _chosen(site.decoder, site, selection, bundle.address)
    shared = site.decoder and {s.out for s in site.encoder} == {s.out for s in site.decoder}
    encoder_slabs = _chosen(site.encoder, site, selection, bundle.address) if shared else site.encoder
    space = space_of(site, opened.config, bundle.where, [s.out for s in decoder_slabs])
    firing = _frequencies(opened, site, space.reads)
    said = (site.convention, site.assumed, firing.note)
    notes = [*bundle.notes, *opened.notes, *space.notes, *(n for n in said if n)]
    if len(decoder_slabs) > 1:
        outs = ", ".join(str(s.out) for s in decoder_slabs)
        notes.append(f"each row is the concatenation of {site.layout.out}s {outs}, normalized as a whole")
    if space.transcoder:
        notes.append(f"a transcoder: its directions are in the output space ({space.writes or 'hook point unknown'})")
    z_scored = site.layout.z_scored or inputs_are_z_scored(opened.config)
    if z_scored:
        notes.append("trained on z-scored inputs: coordinates are in standard deviations, not in the model's units")
    decoder = _decoder(opened.file, site, decoder_slabs)
    threshold = _bias(opened.file, site.threshold, site.n_latents, [site.source], site.layer)
    dictionary = Dictionary.from_decoder(
        decoder,
        latent_axis=0,
        encoder=_joined_slabs(opened.file, encoder_slabs) if encoder and encoder_slabs else None,
        name=name or bundle.name,
        hook_point=space.writes if space.transcoder and len(decoder_slabs) == 1 else space.reads,
        model=space.model,
        encoder_bias=_bias(opened.file, site.encoder_bias, site.n_latents, [site.source], site.layer),
        decoder_bias=_bias(
            opened.file, site.decoder_bias, decoder.shape[1], [s.index for s in decoder_slabs], site.layer
        ),
        threshold=threshold.exp() if threshold is not None and "log_threshold" in str(site.threshold) else threshold,
        frequency=firing.frequency,
        alive=firing.alive,
        alive_source=firing.source,
        n_tokens=bundle.n_tokens,
        address=f"{bundle.address}{selection}",
        layout=site.layout.name,
        metadata={**({"inputs": "z-scored"} if z_scored else {}), **_metadata(opened, space)},
        notes=notes,
        drop_bad=drop_bad,
    )
    return dictionary.keep_alive() if latents == "alive" else dictionary


def _chosen(slabs: tuple[Slab, ...], site: Site, selection: Selection, address: str) -> tuple[Slab, ...]:
    for kind in ("layer", "model"):
        wanted = getattr(selection, kind)
        if wanted is None or (kind == "layer" and site.place is not None):
            continue
        outs = [s.out for s in site.decoder if s.out is not None]
        if kind not in (site.layout.out, site.layout.or_out) or not outs:
            raise LayoutError(f"{address} does not write to several {kind}s; leave out ::{kind}={wanted}")
        if wanted not in outs:
            raise LayoutError(f"{address} writes to {kind}s {', '.join(map(str, outs))}, not to {wanted}")
        slabs = tuple(s for s in slabs if s.out == wanted)
    return slabs


def _decoder(file: TensorFile, site: Site, slabs: tuple[Slab, ...]) -> Float[Tensor, "n_latents width"]:
    """Return the decoder, computed from several tensors if the file stores it in parts."""
    decoder = _joined_slabs(file, slabs)
    if site.mixture is not None:
        w, c = (file.read(key).to(torch.float64) for key in site.mixture)
        decoder = w @ c + decoder.to(torch.float64)
    if site.log_scale is not None and (scale := file.read(site.log_scale)).numel() == 1:
        decoder = decoder.to(torch.float64) * scale.to(torch.float64).exp().flatten()
    return decoder


def _joined_slabs(file: TensorFile, slabs: tuple[Slab, ...]) -> Float[Tensor, "n_latents width"]:
    rows = [_slab(file, s) for s in slabs]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _slab(file: TensorFile, slab: Slab) -> Float[Tensor, "n_latents width"]:
    places = {"1": 0, "s": slab.at or 0, "o": slab.index or 0}
    chosen = [(i, places[letter]) for i, letter in enumerate(slab.axes) if letter in places]
    tensor = file.read(slab.key, chosen[0]) if chosen else file.read(slab.key)
    for axis, place in reversed(chosen[1:]):
        tensor = tensor.select(axis - 1, place)
    return tensor if slab.axes.index("n") < slab.axes.index("d") else tensor.T


def _bias(file: TensorFile, key: str | None, n: int, rows: Sequence[int | None], layer: int | None) -> Tensor | None:
    """Return a bias of length `n`, made of the given rows if biases are stacked; None if the shape does not fit."""
    if key is None:
        return None
    bias = file.read(key)
    while bias.ndim > 1 and bias.shape[0] == 1:
        bias = bias[0]
    rows = rows if layer is None else [layer]
    if bias.ndim == 2 and all(i is not None and i < bias.shape[0] for i in rows):
        bias = bias[[i for i in rows if i is not None]].flatten()
    return bias.clone() if bias.shape == (n,) and bias.is_floating_point() else None


def _frequencies(opened: Opened, site: Site, hook: str | None) -> Frequencies:
    bundle, n = opened.bundle, site.n_latents
    if hook is not None and hook in bundle.alive_ids:
        ids = torch.as_tensor(list(bundle.alive_ids[hook]), dtype=torch.int64)
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < n):
            raise SourceError(f"{bundle.address}: latent {int(ids.max()):,} is alive, but there are only {n:,}")
        alive = torch.zeros(n, dtype=torch.bool)
        alive[ids] = True
        return Frequencies(None, alive, bundle.alive_source)
    if bundle.sparsity is not None:
        return _from_sparsity(bundle.sparsity, n)
    if (key := site.frequency) is not None:
        return _from_tensor(opened.file.read(key).flatten(), key, n)
    return Frequencies()


def _from_tensor(stored: Tensor, key: str, n: int) -> Frequencies:
    """Return the frequencies in a tensor of shares, or only the alive latents from a tensor of counts."""
    if stored.shape[0] != n or stored.is_complex() or bool((stored == 1).all()):
        return Frequencies()
    values = stored.to(torch.float64)
    if not bool(torch.isfinite(values).all()):
        return Frequencies(note=f"{key} contains NaN or infinite frequencies and was ignored")
    if bool(((values >= 0) & (values <= 1)).all()):
        return Frequencies(values, values > 0, f"{key} > 0")
    outside = f"{key} ranges from {float(values.min()):.4g} to {float(values.max()):.4g}, outside 0…1"
    return Frequencies(None, values > 0, f"{key} > 0", f"{outside}: used only to determine which latents are alive")


def _from_sparsity(path: Any, n: int) -> Frequencies:
    file = open_tensors(path)
    if "sparsity" not in file.entries or file.entries["sparsity"].shape != (n,):
        raise SourceError(f"{path.name} does not contain one log-frequency per latent ({n:,})")
    logs = file.read("sparsity").to(torch.float64)
    if not bool((logs <= _HIGHEST_LOG10).all()) or bool(torch.isinf(logs).any()):  # NaN fails the first test.
        return Frequencies(note=f"{path.name} was ignored: log-frequencies are NaN, infinite or above 0")
    dead = logs <= _DEAD_LOG10
    frequency = torch.where(dead, 0.0, (10.0**logs - 1e-10).clamp(0.0, 1.0))
    return Frequencies(frequency, ~dead, f"{path.name}: frequency > 0")


def _metadata(opened: Opened, space: Space) -> dict[str, Any]:
    layers = list(tables(opened.config))
    found = {
        k: next((v for n in names for t in layers if is_plain(v := t.get(n)) and v != ""), None)
        for k, names in _METADATA.items()
    }
    found["transcoder"] = space.transcoder or None
    if space.transcoder:
        found |= {"hook_point_in": space.reads, "hook_point_out": space.writes}
    if found["l0"] is None and (stated := re.search(r"average_l0_(\d+)", opened.bundle.where)):
        found["l0"] = float(stated[1])
    if opened.sites[0].layout.name == "sae_geometry" and "kind" in opened.file.metadata:
        found["kind"] = opened.file.metadata["kind"]  # In other layouts, "kind" may mean something else.
    said = {k: v for k, v in opened.file.extras.items() if "." not in k}  # Nested keys may be an optimizer's.
    return {**{k: v for k, v in found.items() if v is not None}, **said, **opened.bundle.metadata}
