"""Labels for dictionaries of a command: which table belongs to which run, answered rather than guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import few
from sae_geometry.labels.label_file import read_labels
from sae_geometry.labels.model import read_unembedding
from sae_geometry.labels.neuronpedia import Export, read_export, read_folder
from sae_geometry.labels.tokens import read_tokens
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.neuronpedia import source_on_neuronpedia
from sae_geometry.sources.neuronpedia_export import fetch_export

_NEURONPEDIA = "neuronpedia"
_LABEL = re.compile(r"([\w][\w .+\-]*)=(.+)", re.DOTALL)


def with_labels(
    dictionaries: Sequence[Dictionary], context: Context, *, unembed: str | None = None, given: Sequence[str] = ()
) -> list[Dictionary]:
    """Return the dictionaries with labels from a model's unembedding, from files, and from Neuronpedia.

    Args:
        dictionaries: with distinct names.
        context: offline mode and callbacks; what was used is said there.
        unembed: address of the model.
        given: of each table [NAME=]FILE, [NAME=]FOLDER or [NAME=]neuronpedia[:MODEL/SOURCE].

    Raises:
        ValueError: a table that fits none or several of the runs, or is of another dictionary.
        SourceError: nothing there, or unreachable.
    """
    labeled = list(dictionaries)
    for text in given:
        for at in _meant(text, labeled):
            labeled[at] = _with_table(labeled[at], _place(text, labeled), context)
    if unembed is not None:
        unembedding = read_unembedding(unembed, context)
        context.say(f"tokens by {unembedding.name}: {unembedding.how}")
        labeled = [d.labeled(read_tokens(d, unembedding, progress=context.progress).labels) for d in labeled]
    return labeled


def _place(text: str, dictionaries: Sequence[Dictionary]) -> str:
    named = _LABEL.fullmatch(text)
    return named[2] if named and named[1] in {d.name for d in dictionaries} else text


def _meant(text: str, dictionaries: Sequence[Dictionary]) -> list[int]:
    """Return the dictionaries that a table is given for."""
    place = _place(text, dictionaries)
    if place != text:
        return [i for i, d in enumerate(dictionaries) if d.name == text[: -len(place) - 1]]
    if place == _NEURONPEDIA:
        known = [i for i, d in enumerate(dictionaries) if source_on_neuronpedia(d) is not None]
        if known:
            return known
        raise ValueError(
            f"the pages of {dictionaries[0].name!r} on Neuronpedia are not known: "
            "give --labels neuronpedia:MODEL/SOURCE"
        )
    if len(dictionaries) == 1:
        return [0]
    names = ", ".join(few([d.name for d in dictionaries], 4))
    raise ValueError(f"--labels {text}: labels of which run? Give --labels NAME={text}, NAME one of {names}")


def _with_table(d: Dictionary, place: str, context: Context) -> Dictionary:
    if place == _NEURONPEDIA or place.startswith(f"{_NEURONPEDIA}:"):
        source = place.partition(":")[2] or source_on_neuronpedia(d)
        if source is None:
            raise ValueError(f"the pages of {d.name!r} on Neuronpedia are not known: give neuronpedia:MODEL/SOURCE")
        export = read_export(fetch_export(source, context), source)
    elif Path(place).expanduser().is_dir():
        export = read_folder(Path(place).expanduser())
    else:
        return d.labeled(read_labels(Path(place).expanduser()))
    return _noted(d.labeled(export.labels), export, context)


def _noted(d: Dictionary, export: Export, context: Context) -> Dictionary:
    """Say which explainer was taken, and how many latents have no label."""
    said = [f"labels of {export.source} by Neuronpedia"]
    if export.explainer is not None:
        said.append(f"explanations by {export.explainer}")
    if export.others:
        others = ", ".join(f"{n:,} by {who}" for who, n in export.others.items())
        said.append(f"left out: {others}, since explainers must not be mixed")
    missing = d.n_latents - len(d.labels.frame) if d.labels is not None else d.n_latents
    if missing:
        said.append(f"{missing:,} of {d.n_latents:,} latents have none")
    note = "; ".join(said)
    context.say(f"{d.name}: {note}")
    return replace(d, notes=(*d.notes, note))
