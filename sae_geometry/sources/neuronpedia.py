"""Links to Neuronpedia: pages and lists of latents, for dictionaries with known pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources.as_dictionary import as_dictionary
from sae_geometry.sources.catalog import neuronpedia_source

SITE = "https://www.neuronpedia.org"
MAX_LISTED = 150
_SOURCE = re.compile(r"[\w.-]+/[\w.-]+")


def source_on_neuronpedia(dictionary: Dictionary) -> str | None:
    """Return the "model/source" of a dictionary's pages, from its configuration or a catalog; None where unknown."""
    return _source(dictionary.metadata, dictionary.address)


def neuronpedia_url(dictionary: Any, latent_id: int) -> str | None:
    """Return the URL of a latent's page on Neuronpedia, `SITE/model/source/index`; None where its pages are unknown.

    Pages are known for checkpoints whose configuration names them, for the published runs of the end-to-end paper, and
    for releases in an installed sae-lens. The network is not used, so the page may not exist.

    Args:
        dictionary: a `Dictionary`, an address, an array, or any other input of `load` and `as_dictionary`; a dictionary
            made in memory has no pages.
        latent_id: original id of the latent.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> address = "wandb:sparsify/gpt2/1jy3m5j0#samples_400000.pt"
        >>> d = sg.Dictionary.from_decoder(np.eye(2), latent_axis=0, address=address)
        >>> sg.neuronpedia_url(d, 1)
        'https://www.neuronpedia.org/gpt2-small/6-res_scl-ajt/1'
    """
    source = source_on_neuronpedia(as_dictionary(dictionary))
    return None if source is None else f"{SITE}/{source}/{int(latent_id)}"


def neuronpedia_pages(metadata: Mapping[str, Any], address: str | None) -> str | None:
    """Return the URL of a dictionary's pages, `SITE/model/source`, from the values in a summary; None where unknown."""
    source = _source(metadata, address)
    return None if source is None else f"{SITE}/{source}"


def neuronpedia_lists(latents: Iterable[tuple[Dictionary, int]], name: str) -> list[str]:
    """Return URLs of Neuronpedia quick lists of these latents, at most 150 per list, in the given order.

    Latents of dictionaries without known pages are left out. Several lists are named "NAME 1 of 3" and so on.
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


def _source(metadata: Mapping[str, Any], address: str | None) -> str | None:
    said = metadata.get("neuronpedia_id")
    if isinstance(said, str) and _SOURCE.fullmatch(said):
        return said
    saelens = metadata.get("saelens")
    return neuronpedia_source(address or "", saelens if isinstance(saelens, str) else None)
