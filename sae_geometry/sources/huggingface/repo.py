"""Checkpoints on Hugging Face, by its own client and in its own cache: a pinned commit, and only the files needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.cache import cache_root, safe_path
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.http import RefusedError, limits
from sae_geometry.sources.huggingface.client import bar_class, bounded
from sae_geometry.sources.layouts.filenames import (
    SPARSITY_NAME,
    choose_weights,
    label_for,
    looks_like_weights,
    other_half,
    side_names,
    source_of,
)

_COMMIT = 40


@dataclass(frozen=True)
class _Repo:
    """One commit of a repository: its files, and their checksums where known."""

    name: str
    commit: str
    files: Mapping[str, str | None]


def bundle_huggingface(address: Address, context: Context) -> Bundle:
    """The checkpoint at an hf:// address: a file, a folder, or a whole repository with one.

    Raises:
        SourceError: a missing, gated or unreachable repository, a damaged file, or nothing cached with `offline`.
    """
    with bounded(address) as offline_too:
        context = replace(context, offline=context.offline or offline_too)
        repo = _cached_repo(address) if context.offline else _listed_repo(address.place, address.revision)
        repo = repo or _asked_repo(address, context)
        pinned = _choose(repo, address, context)
        sides = [n for w in pinned[:1] for n in side_names(w) if n in repo.files]
        context.say(f"using {', '.join(pinned)} of {repo.name} at commit {repo.commit[:12]}")
        paths = {n: _bring(repo, n, context) for n in (*pinned, *sides)}
        _remember(repo, address.revision or "main")
    spelled = f"hf://{repo.name}@{repo.commit}/{pinned[0] if len(pinned) == 1 else pinned[0].rpartition('/')[0]}"
    return Bundle(
        tuple(paths[n] for n in pinned),
        address=spelled,
        name=label_for(pinned[0], repo.name),
        where=f"{repo.name}/{pinned[0]}",
        configs=tuple(paths[n] for n in sides if not n.endswith(SPARSITY_NAME)),
        sparsity=next((paths[n] for n in sides if n.endswith(SPARSITY_NAME)), None),
        metadata={"repository": repo.name, "commit": repo.commit},
    )


def _choose(repo: _Repo, address: Address, context: Context) -> tuple[str, ...]:
    path = address.path or ""
    if path in repo.files:
        half = other_half(path)
        return (path, half) if half is not None and half in repo.files else (path,)
    inside = {n.removeprefix(f"{path}/" if path else ""): n for n in repo.files if not path or n.startswith(f"{path}/")}
    if not inside:
        if context.offline:
            raise SourceError(f"{address} is not in the Hugging Face cache; leave out --offline")
        near = sorted(n for n in repo.files if looks_like_weights(n))[:5]
        raise RefusedError(f"{address} does not exist{'; the repository has ' + ', '.join(near) if near else ''}", 404)
    chosen = tuple(inside[n] for n in choose_weights(list(inside), str(address)))
    return _one_source(chosen, address) if len(chosen) > 1 else chosen


def _one_source(halves: tuple[str, ...], address: Address) -> tuple[str, ...]:
    """The files of the one layer that is meant, so that a transcoder of many layers is not fetched whole."""
    sources = {n: source_of(n) for n in halves}
    wanted = address.selection.source
    found = tuple(n for n in halves if wanted in (None, sources[n]))
    if not found or len({sources[n] for n in found}) > 1:
        listed = ", ".join(f"::source={i}" for i in sorted({i for i in sources.values() if i is not None}))
        raise LayoutError(f"{address} holds the latents of several layers; choose one by adding {listed}")
    return found


def _asked_repo(address: Address, context: Context) -> _Repo:
    from huggingface_hub import HfApi

    if context.offline:
        raise SourceError(f"{address} is not in the Hugging Face cache; leave out --offline")
    timeout = limits().connect + limits().silence
    info = HfApi().model_info(address.place, revision=address.revision, files_metadata=True, timeout=timeout)
    if not _is_commit(info.sha):
        raise SourceError(f"{address}: Hugging Face did not say which commit this is")
    files: dict[str, str | None] = {}
    for file in info.siblings or []:
        lfs = getattr(file, "lfs", None)
        files[str(file.rfilename)] = getattr(lfs, "sha256", None) if lfs is not None else file.blob_id
    repo = _Repo(address.place, str(info.sha), files)
    listing = _listing(repo.name, repo.commit)
    try:
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(json.dumps(files), encoding="utf-8")
    except OSError:
        pass  # a cache that cannot be written only costs the request again
    return repo


def _listing(name: str, commit: str) -> Path:
    return cache_root() / "huggingface" / safe_path(name) / f"{commit}.json"


def _listed_repo(name: str, commit: str | None) -> _Repo | None:
    """A commit whose files were listed before: it cannot have changed."""
    if commit is None or not _is_commit(commit):
        return None
    try:
        files = json.loads(_listing(name, commit).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _Repo(name, commit, files) if isinstance(files, dict) else None


def _cached_repo(address: Address) -> _Repo | None:
    """What the cache holds of a repository, at the revision asked for."""
    folder, revision = _cache_folder(address.place), address.revision or "main"
    reference = folder / "refs" / safe_path(revision)
    try:
        commit = revision if _is_commit(revision) else reference.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / commit
    listed = _listed_repo(address.place, commit)
    sums = listed.files if listed is not None else {}
    names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
    return _Repo(address.place, commit, {n: sums.get(n) for n in names}) if names else None


def _remember(repo: _Repo, revision: str) -> None:
    """Note which commit a branch or tag was, as the client does, so that it is found again offline."""
    if _is_commit(revision):
        return
    reference = _cache_folder(repo.name) / "refs" / safe_path(revision)
    try:
        if not reference.is_file() or reference.read_text(encoding="utf-8") != repo.commit:
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(repo.commit, encoding="utf-8")
    except OSError:
        return  # a cache that cannot be written is only not found offline


def _cache_folder(name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + name.replace("/", "--"))


def _bring(repo: _Repo, name: str, context: Context) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    safe_path(name)
    cached = try_to_load_from_cache(repo.name, name, revision=repo.commit)
    if not isinstance(cached, str):
        if context.offline:
            raise SourceError(f"{name} of {repo.name} is not in the Hugging Face cache; leave out --offline")
        context.say(f"fetching {name} from {repo.name}")
        cached = hf_hub_download(
            repo.name, name, revision=repo.commit, etag_timeout=limits().connect,
            tqdm_class=bar_class(name, context.progress),
        )  # fmt: skip
    path = Path(cached)
    _verify(path, name, repo)
    return path


def _verify(path: Path, name: str, repo: _Repo) -> None:
    """Check a cached file against its checksum, once for each state of the file; a wrong one is removed."""
    blob = Path(os.path.normpath(path.parent / os.readlink(path))) if path.is_symlink() else path
    expected = repo.files.get(name) or (blob.name if blob.parent.name == "blobs" else None)
    if expected is None or len(expected) not in (40, 64):
        return
    state = blob.stat()
    line = f"{expected} {state.st_size} {state.st_mtime_ns}"
    marker = cache_root() / "verified" / hashlib.sha256(str(blob).encode()).hexdigest()[:32]
    try:
        if marker.read_text(encoding="utf-8") == line:
            return
    except OSError:
        pass
    with path.open("rb") as f:
        if len(expected) == 64:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        else:  # git's name of a blob
            header = hashlib.sha1(f"blob {state.st_size}\0".encode(), usedforsecurity=False)
            digest = hashlib.file_digest(f, lambda: header).hexdigest()
    if digest != expected:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise SourceError(
            f"{name} of {repo.name} is damaged: its checksum is not the recorded one; removed, fetch it again"
        )
    if looks_like_weights(name):
        try:
            open_tensors(path)
        except SourceError as error:
            raise SourceError(f"{repo.name}: {error}") from error
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(line, encoding="utf-8")
    except OSError:
        return  # a cache that cannot be written only costs the check again


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == _COMMIT and all(c in "0123456789abcdef" for c in revision)
