"""Links to Neuronpedia: a latent's page, and lists of latents, for dictionaries whose pages are known there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources.catalog import neuronpedia_source

SITE = "https://www.neuronpedia.org"
MAX_LISTED = 150
_SOURCE = re.compile(r"[\w.-]+/[\w.-]+")


def source_on_neuronpedia(dictionary: Dictionary) -> str | None:
    """The "model/source" of a dictionary's pages: what its configuration says, or a catalogue; None where unknown."""
    said = dictionary.metadata.get("neuronpedia_id")
    if isinstance(said, str) and _SOURCE.fullmatch(said):
        return said
    saelens = dictionary.metadata.get("saelens")
    return neuronpedia_source(dictionary.address or "", saelens if isinstance(saelens, str) else None)


def neuronpedia_url(dictionary: Dictionary, latent_id: int) -> str | None:
    """The address of a latent's page on Neuronpedia, `SITE/model/source/index`; None where its pages are not known.

    Known are checkpoints whose configuration names its pages, the published runs of the end-to-end paper, and what an
    installed sae-lens lists. Whether the page is there is not asked of the network.

    Args:
        dictionary: a loaded `Dictionary`.
        latent_id: the latent's original id.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> address = "wandb:sparsify/gpt2/1jy3m5j0#samples_400000.pt"
        >>> d = sg.Dictionary.from_decoder(np.eye(2), latent_axis=0, address=address)
        >>> sg.neuronpedia_url(d, 1)
        'https://www.neuronpedia.org/gpt2-small/6-res_scl-ajt/1'
    """
    source = source_on_neuronpedia(dictionary)
    return None if source is None else f"{SITE}/{source}/{int(latent_id)}"


def neuronpedia_lists(latents: Iterable[tuple[Dictionary, int]], name: str) -> list[str]:
    """Addresses of Neuronpedia quick lists of these latents, at most 150 on each, in the order given.

    Latents of dictionaries without known pages are left out. Several lists are called "NAME 1 of 3", and so on.
    """
    sources: dict[int, str | None] = {}
    entries = []
    for d, latent_id in latents:
        if id(d) not in sources:
            sources[id(d)] = source_on_neuronpedia(d)
        if source := sources[id(d)]:
            model, _, layer = source.partition("/")
            entries.append({"modelId": model, "layer": layer, "index": str(int(latent_id))})
    parts = [entries[i : i + MAX_LISTED] for i in range(0, len(entries), MAX_LISTED)]
    titles = [name] if len(parts) == 1 else [f"{name} {i} of {len(parts)}" for i in range(1, len(parts) + 1)]
    return [
        f"{SITE}/quick-list/?name={quote(title)}&features={quote(json.dumps(part, separators=(',', ':')))}"
        for title, part in zip(titles, parts, strict=True)
    ]
