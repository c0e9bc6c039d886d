"""Attach tables of labels to a command's dictionaries, and raise ValueError if the run of a table is ambiguous."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import counted, few
from sae_geometry.labels.label_file import read_labels
from sae_geometry.labels.neuronpedia import Export, read_export, read_folder
from sae_geometry.labels.tokens import read_tokens
from sae_geometry.labels.unembedding import read_unembedding
from sae_geometry.pairwise.grouping import layer_of
from sae_geometry.pairwise.same_space import ALLOWED, place_key
from sae_geometry.sources.address import NAMED
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.layouts.places import layer_named
from sae_geometry.sources.neuronpedia import fetch_export, source_on_neuronpedia

_NEURONPEDIA = "neuronpedia"
_SITES = {"res": "resid", "resid": "resid", "mlp": "mlp", "att": "attn", "attn": "attn"}  # Keys are Neuronpedia's.


def with_labels(
    dictionaries: Sequence[Dictionary],
    context: Context,
    *,
    unembed: str | None = None,
    given: Sequence[str] = (),
    allow_mismatch: bool = False,
) -> list[Dictionary]:
    """Return the dictionaries with labels from a model's unembedding, from files, and from Neuronpedia.

    Args:
        dictionaries: dictionaries with distinct names.
        context: offline mode and callbacks; `echo` receives the sources of the labels.
        given: tables of labels, each as [NAME=]FILE, [NAME=]FOLDER or [NAME=]neuronpedia[:MODEL/SOURCE].
        allow_mismatch: accept an export for a different layer or site than the dictionary's, and add a note about it.
    """
    labeled = list(dictionaries)
    for text in given:
        for at, place in _meant(text, labeled):
            labeled[at] = _with_table(labeled[at], place, context, allow_mismatch)
    if unembed is not None:
        unembedding = read_unembedding(unembed, context)
        context.say(f"tokens by {unembedding.name}: {unembedding.how}")
        labeled = [d.labeled(read_tokens(d, unembedding, progress=context.progress).labels) for d in labeled]
    return labeled


@dataclass
class LabelEach:
    """Labeler for dictionaries that are read one by one; `used` has the tables in `given` that matched a dictionary."""

    given: Sequence[str]
    context: Context
    allow_mismatch: bool = False
    used: set[str] = field(default_factory=set)

    def __call__(self, d: Dictionary) -> Dictionary:
        """Return the dictionary with labels from the tables that are given under its name or without a name.

        A plain "neuronpedia" applies to every dictionary with known pages.

        Raises:
            ValueError: a table without a name would be used for a second dictionary.
        """
        for text in self.given:
            place, named = text, NAMED.fullmatch(text)
            if named is not None and named[1] == d.name:
                place = named[2]
            elif named is not None or (text == _NEURONPEDIA and source_on_neuronpedia(d) is None):
                continue
            elif text != _NEURONPEDIA and text in self.used:
                raise ValueError(f"--labels {text} names no run: give --labels {d.name}={text} for {d.name!r}")
            d = _with_table(d, place, self.context, self.allow_mismatch)
            self.used.add(text)
        return d

    def require_used(self) -> None:
        """Raise ValueError if a table was not used for any dictionary."""
        unused = [text for text in self.given if text not in self.used]
        if unused:
            raise ValueError(f"--labels {unused[0]} matches no dictionary: NAME=TABLE needs a dictionary's name")


def _meant(text: str, dictionaries: Sequence[Dictionary]) -> list[tuple[int, str]]:
    """Return (index, table) for each dictionary to which `text`, [NAME=]TABLE, applies."""
    named = NAMED.fullmatch(text)
    mine = [i for i, d in enumerate(dictionaries) if named is not None and d.name == named[1]]
    if named is not None and mine:
        return [(i, named[2]) for i in mine]
    if text == _NEURONPEDIA:
        known = [(i, text) for i, d in enumerate(dictionaries) if source_on_neuronpedia(d) is not None]
        if known:
            return known
        raise ValueError(
            f"the Neuronpedia pages of {dictionaries[0].name!r} are unknown: give --labels neuronpedia:MODEL/SOURCE"
        )
    names = ", ".join(few([d.name for d in dictionaries], 4))
    if named is not None and not os.path.exists(os.path.expanduser(text)):
        raise ValueError(f"--labels {text}: no run is named {named[1]!r}; the runs are {names}")
    if len(dictionaries) == 1:
        return [(0, text)]
    raise ValueError(f"--labels {text} does not name a run: give --labels NAME={text}, where NAME is one of {names}")


def _with_table(d: Dictionary, place: str, context: Context, allow_mismatch: bool) -> Dictionary:
    if place == _NEURONPEDIA or place.startswith(f"{_NEURONPEDIA}:"):
        source = place.partition(":")[2] or source_on_neuronpedia(d)
        if source is None:
            raise ValueError(f"the Neuronpedia pages of {d.name!r} are unknown: give neuronpedia:MODEL/SOURCE")
        elsewhere = _elsewhere(d, source, allow_mismatch)
        export = read_export(fetch_export(source, context), source)
    elif Path(os.path.expanduser(place)).is_dir():
        export = read_folder(Path(os.path.expanduser(place)))
        elsewhere = _elsewhere(d, export.source, allow_mismatch)
    else:
        return d.labeled(read_labels(Path(os.path.expanduser(place))))
    return _noted(d.labeled(export.labels), export, elsewhere, context)


def _elsewhere(d: Dictionary, source: str, allow_mismatch: bool) -> list[str]:
    """Return a note if a Neuronpedia source is named after a different layer or site than the dictionary's.

    The residual stream after layer 5 is the residual stream before layer 6, so both layer numbers are accepted.
    """
    place, words = place_key(d), re.split("[-_]", source.partition("/")[2].casefold())
    layer = None if place is None else layer_named(place)
    if place is None or layer is None or source == source_on_neuronpedia(d):
        return []
    layers = {layer, layer_of(d), *([layer + 1] if "resid" in place else [])}
    other_layer = words[0].isdecimal() and int(words[0]) not in layers
    site = next((_SITES[word] for word in words if word in _SITES), None)
    other_site = site is not None and site not in place and any(known in place for known in _SITES.values())
    if not other_layer and not other_site:
        return []
    differs = "layer" if other_layer else "site"
    text = f"{source} is for a different {differs} from {d.name!r}, which is at {d.hook_point}"
    if not allow_mismatch:
        raise ValueError(
            f"{text}: give --labels neuronpedia:MODEL/SOURCE for that {differs}, or pass allow_mismatch=True "
            "(--allow-mismatch)"
        )
    return [f"{text} {ALLOWED}"]


def _noted(d: Dictionary, export: Export, elsewhere: Sequence[str], context: Context) -> Dictionary:
    """Return the dictionary with a note on the explainer and the number of latents without a label; report the note."""
    said = [f"labels of {export.source} from Neuronpedia"]
    if export.explainer is not None:
        said.append(f"explanations by {export.explainer}")
    if export.others:
        others = ", ".join(f"{n:,} by {who}" for who, n in export.others.items())
        said.append(f"left out, because explainers must not be mixed: {others}")
    missing = d.n_latents - len(d.labels.frame) if d.labels is not None else d.n_latents
    if missing:
        said.append(f"without a label: {missing:,} of {counted(d.n_latents, 'latent')}")
    said += elsewhere
    note = "; ".join(said)
    context.say(f"{d.name}: {note}")
    return replace(d, notes=(*d.notes, note))
