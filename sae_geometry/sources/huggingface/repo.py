"""Download checkpoints from Hugging Face at a pinned commit, file by file, with the official client and cache."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.cache import cache_root, commit_of, safe_path
from sae_geometry.sources.checksums import intact, read_sealed, write_sealed
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.http import RefusedError, limits
from sae_geometry.sources.huggingface.client import Watch, bar_class, bounded
from sae_geometry.sources.layouts.filenames import (
    SPARSITY_NAME,
    choose_files,
    label_for,
    looks_like_weights,
    path_of,
    separate_checkpoints,
    side_names,
    source_of,
)

_MOST_COMMITS = 4


@dataclass(frozen=True)
class Repo:
    """A commit of a repository ("org/repo" or "datasets/org/repo"), with the checksums of its files if known."""

    name: str
    commit: str
    files: Mapping[str, str | None]
    guessed: str | None = None


def bundle_huggingface(address: Address, context: Context) -> Bundle:
    """Return the checkpoint at an hf:// address, which may name a file, a folder or a whole repository."""
    with bounded(address, context) as watch:
        repo = repo_of(address, watch)
        pinned = _choose(repo, address, watch)
        sides = [n for w in pinned[:1] for n in side_names(w) if n in repo.files]
        context.say(f"using {', '.join(pinned)} of {repo.name} at commit {repo.commit[:12]}")
        paths = {n: bring(repo, n, watch) for n in (*pinned, *sides)}
        if not watch.context.offline and repo.guessed is None:
            remember(repo, address.revision or "main", pinned[0], watch)
    spelled = f"hf://{repo.name}@{repo.commit}/{path_of(pinned)}".rstrip("/")
    return Bundle(
        tuple(paths[n] for n in pinned),
        address=spelled,
        name=label_for(pinned[0], repo.name),
        where=f"{repo.name}/{pinned[0]}",
        configs=tuple(paths[n] for n in sides if not n.endswith(SPARSITY_NAME)),
        sparsity=next((paths[n] for n in sides if n.endswith(SPARSITY_NAME)), None),
        metadata={"repository": repo.name, "commit": repo.commit},
        notes=() if repo.guessed is None else (repo.guessed,),
    )


def separate_places(address: Address, context: Context) -> list[str]:
    """Return the pinned addresses of all checkpoints in a folder or repository; empty if there is only one."""
    with bounded(address, context) as watch:
        repo = repo_of(address, watch)
        if address.path in repo.files:
            return []
        base = f"{address.path}/" if address.path else ""
        inside = [n.removeprefix(base) for n in repo.files if n.startswith(base)]
        if not inside:
            raise _missing(repo, address, watch)
        labels = separate_checkpoints(inside)
        return [f"hf://{repo.name}@{repo.commit}/{base}{label}" for label in labels]


def repo_of(address: Address, watch: Watch) -> Repo:
    """Return the commit of the repository at an address, from the cache, an earlier listing or the server."""
    repo = _cached_repo(address) if watch.context.offline else _listed_repo(address.place, address.revision)
    return repo or _asked_repo(address, watch)


def _choose(repo: Repo, address: Address, watch: Watch) -> tuple[str, ...]:
    chosen = choose_files(list(repo.files), address.path, str(address))
    if not chosen:
        raise _missing(repo, address, watch)
    return _one_source(chosen, address) if len(chosen) > 1 and address.path not in repo.files else chosen


def _missing(repo: Repo, address: Address, watch: Watch) -> SourceError:
    if watch.context.offline:
        return SourceError(f"{address} is not in the Hugging Face cache; leave out --offline")
    near = sorted(n for n in repo.files if looks_like_weights(n))[:5]
    return RefusedError(f"{address} does not exist{'; the repository has ' + ', '.join(near) if near else ''}", 404)


def _one_source(halves: tuple[str, ...], address: Address) -> tuple[str, ...]:
    """Return the files of the selected layer, to avoid downloading the other layers of a transcoder."""
    sources = {n: source_of(n) for n in halves}
    wanted = address.selection.source
    found = tuple(n for n in halves if wanted is None or sources[n] in (None, wanted))
    if not found or len({sources[n] for n in found}) > 1:
        listed = ", ".join(f"::source={i}" for i in sorted({i for i in sources.values() if i is not None}))
        raise LayoutError(f"{address} holds the latents of several layers; choose one by adding {listed}")
    return found


def _asked_repo(address: Address, watch: Watch) -> Repo:
    from huggingface_hub import HfApi

    if watch.context.offline:
        raise SourceError(f"{address} is not in the Hugging Face cache; leave out --offline")
    timeout = limits().connect + limits().silence
    info: Any = watch.within(
        lambda: HfApi().repo_info(
            revision=address.revision, files_metadata=True, timeout=timeout, **client_name(address.place)
        )
    )
    if not _is_commit(info.sha):
        raise SourceError(f"{address}: Hugging Face did not name the commit")
    files: dict[str, str | None] = {}
    for listed in info.siblings or []:
        digest = listed.blob_id if listed.lfs is None else listed.lfs.sha256
        if str(listed.rfilename).isprintable():  # Otherwise `safe_path` would raise.
            files[str(listed.rfilename)] = digest if isinstance(digest, str) else None
    repo = Repo(address.place, str(info.sha), files)
    with suppress(OSError):  # If the cache is not writable, the next call repeats the request.
        write_sealed(_listing(repo.name, repo.commit), files)
    return repo


def _listing(name: str, commit: str) -> Path:
    return cache_root() / "huggingface" / safe_path(name) / f"{commit}.json"


def _listed_repo(name: str, commit: str | None) -> Repo | None:
    """Return a commit from its stored list of files, since commits never change; None if no list is stored."""
    if commit is None or not _is_commit(commit) or (files := read_sealed(_listing(name, commit))) is None:
        return None
    return Repo(name, commit, {n: digest if isinstance(digest, str) else None for n, digest in files.items()})


def _cached_repo(address: Address) -> Repo | None:
    """Return the commit at an address with its cached files; None if no file is cached."""
    folder, revision = _cache_folder(address.place), address.revision or "main"
    commit, guessed = revision if _is_commit(revision) else commit_of(folder, revision), None
    if commit is None:
        commits = sorted(p.name for p in (folder / "snapshots").glob("*") if p.is_dir())
        if address.revision is not None or not commits:
            return None
        if len(commits) > 1:
            raise SourceError(
                f"the Hugging Face cache has {len(commits)} commits of {address.place} and does not record "
                f"which is main: write hf://{address.place}@ with one of {', '.join(commits[:_MOST_COMMITS])}"
            )
        commit = commits[0]
        guessed = f"the cache does not record which commit is main; its only commit, {commit[:12]}, was used"
    snapshot = folder / "snapshots" / commit
    listed = _listed_repo(address.place, commit)
    sums = listed.files if listed is not None else {}
    names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file() or p.is_symlink()]
    return Repo(address.place, commit, {n: sums.get(n) for n in names}, guessed) if names else None


def _cache_folder(name: str) -> Path:
    from huggingface_hub import constants, file_download

    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(**client_name(name))


def client_name(name: str) -> dict[str, Any]:
    """Return the arguments `repo_id` and `repo_type` of Hugging Face's client for a repository."""
    plain = name.removeprefix("datasets/")
    return {"repo_id": plain, "repo_type": "model" if plain == name else "dataset"}


def remember(repo: Repo, revision: str, name: str, watch: Watch) -> None:
    """Make the client record the commit of a branch or tag, so that the name resolves offline."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if _is_commit(revision):
        return
    noted, here = (
        try_to_load_from_cache(filename=name, revision=r, **client_name(repo.name)) for r in (revision, repo.commit)
    )
    if noted != here:
        watch.within(
            lambda: hf_hub_download(
                filename=name, revision=revision, etag_timeout=limits().connect, **client_name(repo.name)
            )
        )


def bring(repo: Repo, name: str, watch: Watch) -> Path:
    """Return the cached path of a file at a commit, after a download by Hugging Face's client if necessary."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    context = watch.context

    def download(*, force: bool) -> Path:
        context.say(f"fetching {name} from {repo.name}")
        bar = bar_class(name, context.progress)
        how = {"etag_timeout": limits().connect, "force_download": force, "tqdm_class": bar, **client_name(repo.name)}
        return Path(watch.within(lambda: hf_hub_download(filename=name, revision=repo.commit, **how)))

    safe_path(name)
    cached = try_to_load_from_cache(filename=name, revision=repo.commit, **client_name(repo.name))
    path = Path(cached) if isinstance(cached, str) else None
    if path is None and context.offline:
        if (link := _cache_folder(repo.name) / "snapshots" / repo.commit / name).is_symlink():
            raise SourceError(
                f"{name} of {repo.name} is a link in the Hugging Face cache to a file that no longer exists "
                f"({os.readlink(link)}); leave out --offline to fetch it again"
            )
        raise SourceError(f"{name} of {repo.name} is not in the Hugging Face cache; leave out --offline")
    if path is None or context.again == "all":
        path = download(force=context.again == "all")
    elif context.again == "damaged" and not context.offline and not _intact(path, name, repo):
        path = download(force=True)
    if not _intact(path, name, repo):
        if context.again == "none" or context.offline:
            advice = f"run `sae-geometry fetch hf://{repo.name}@{repo.commit}/{name}` to replace the file"
        elif _is_blob(path):
            advice = "the server sent a different file than it lists; try again later"
        else:
            advice = f"{path} is not a link to a cached blob: remove this file, and fetch it again"
        raise SourceError(f"{name} of {repo.name} is damaged: its checksum differs from the recorded one; {advice}")
    if looks_like_weights(name):
        try:
            open_tensors(path)
        except SourceError as error:
            raise SourceError(f"{repo.name}: {error}") from error
    return path


def _is_blob(path: Path) -> bool:
    """Return whether a file in a snapshot folder is a link to a blob of the client."""
    return path.is_symlink() and Path(os.readlink(path)).parent.name == "blobs"


def _intact(path: Path, name: str, repo: Repo) -> bool:
    """Return whether a cached file has the checksum in the listing or in its blob's name; True if both are unknown."""
    expected = repo.files.get(name) or (Path(os.readlink(path)).name if _is_blob(path) else "")
    return len(expected) not in (40, 64) or intact(path, expected)


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
