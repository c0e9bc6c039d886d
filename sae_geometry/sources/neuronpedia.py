"""Links to Neuronpedia's pages and lists of latents, and downloads of its public exports, without a key.

Below v1/MODEL/SOURCE/, the bucket of exports has the folders features, explanations (also explanations-NAME) and
activations, each with files batch-N.jsonl.gz. Activations are not fetched.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources.as_dictionary import as_dictionary
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.cache import cache_root, safe_path
from sae_geometry.sources.catalog import neuronpedia_source
from sae_geometry.sources.checksums import intact, read_sealed, write_sealed
from sae_geometry.sources.download import RemoteFile, fetch_file
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, whole_answer

SITE = "https://www.neuronpedia.org"
MAX_LISTED = 150
BUCKET = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
BUCKET_VARIABLE = "SAE_GEOMETRY_NEURONPEDIA_EXPORTS"
_WANTED = re.compile(r"(?:features|explanations(?:-[\w.-]+)?)/batch-\d+\.jsonl\.gz")
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_MOST_PAGES = 1000
_SOURCE = re.compile(r"[\w.-]+/[\w.-]+")


def source_on_neuronpedia(dictionary: Dictionary) -> str | None:
    """Return a dictionary's "model/source" on Neuronpedia, from its configuration or a catalog; None if unknown."""
    return _source(dictionary.metadata, dictionary.address)


def neuronpedia_url(dictionary: Any, latent_id: int) -> str | None:
    """Return the URL of a latent's page on Neuronpedia, `SITE/model/source/index`; None if its pages are unknown.

    Known are the pages of checkpoints whose configuration names them, of published runs of the end-to-end paper, and of
    releases that an installed sae-lens lists. The network is not used, so a page may not exist.

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
    """Return the URL of a dictionary's pages, `SITE/model/source`, from its metadata and address; None if unknown."""
    source = _source(metadata, address)
    return None if source is None else f"{SITE}/{source}"


def neuronpedia_lists(latents: Iterable[tuple[Dictionary, int]], name: str) -> list[str]:
    """Return the URLs of Neuronpedia quick lists of these latents, at most 150 per list, in the given order.

    Latents of dictionaries without known pages are left out. Multiple lists are named "NAME 1 of 3" and so on.
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


def fetch_export(source: str, context: Context | None = None) -> Path:
    """Return the cache folder that contains the export MODEL/SOURCE, after downloading the export if necessary."""
    context = context or Context()
    if not _SOURCE.fullmatch(source):
        raise SourceError(f"{source!r:.80} is not a Neuronpedia MODEL/SOURCE, such as gpt2-small/8-res-jb")
    root = cache_root() / "neuronpedia"
    folder, record = root / safe_path(source), root / safe_path(source) / "export.json"
    sums = {str(k): str(v) for k, v in (read_sealed(record) or {}).items()}
    there = bool(sums) and all((folder / safe_path(n)).is_file() for n in sums)
    damaged = [n for n, digest in sums.items() if there and not intact(folder / safe_path(n), digest)]
    if there and not damaged and context.again == "none":
        return root
    if context.offline:
        what = f"is damaged in the cache ({damaged[0]})" if damaged else "is not in the cache"
        raise SourceError(f"Neuronpedia's export of {source} {what}; leave out --offline")
    files = _listed(source)
    context.say(f"fetching the export of {source} from Neuronpedia ({sum(f.n_bytes or 0 for f in files):,} bytes)")
    found = {
        f.name: fetch_file(f, folder / safe_path(f.name), recorded=sums.get(f.name), progress=context.progress)
        for f in files
    }
    write_sealed(record, found)
    return root


def _listed(source: str) -> list[RemoteFile]:
    """Return the batch files of an export, as listed on all pages of the bucket's listing."""
    bucket = os.environ.get(BUCKET_VARIABLE, BUCKET).rstrip("/")
    prefix, files, token = f"v1/{source}/", list[RemoteFile](), ""
    for _ in range(_MOST_PAGES):
        query = f"list-type=2&prefix={quote(prefix, safe='')}"
        page = _page(f"{bucket}/?{query}" + (f"&continuation-token={quote(token, safe='')}" if token else ""))
        for entry in page.iter("Contents"):
            key, size, etag = (entry.findtext(tag) or "" for tag in ("Key", "Size", "ETag"))
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and _WANTED.fullmatch(name):
                n_bytes = int(size) if size.isdecimal() and len(size) < 16 else None
                md5 = _MD5.fullmatch(etag)  # The ETag of a multipart upload is not an MD5.
                files.append(RemoteFile(name, f"{bucket}/{quote(key)}", n_bytes, md5[1] if md5 else None))
        token = page.findtext("NextContinuationToken") or ""
        if page.findtext("IsTruncated") != "true" or not token:
            break
    if not files:
        raise RefusedError(
            f"Neuronpedia has no export of {source}; copy MODEL/SOURCE from the URL of a latent's page", 404
        )
    return files


def _page(url: str) -> ElementTree.Element:
    what = "listing the exports of Neuronpedia"
    raw = whole_answer("GET", url, what)
    try:
        if b"<!" in raw:  # A DTD could define entities that expand without bound.
            raise ValueError("a DTD")
        page = ElementTree.fromstring(raw)
        for element in page.iter():
            element.tag = element.tag.rpartition("}")[2]  # Remove the namespace from the tag.
        if page.tag != "ListBucketResult":
            raise ValueError("another document")
    except (ValueError, ElementTree.ParseError) as error:
        raise SourceError(f"{what}: the response is not a bucket listing") from error
    return page
