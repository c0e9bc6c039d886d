"""Identify and open tensor files by their first bytes, or explain why a file is not a tensor file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes
from sae_geometry.sources.files.dcp import DCP_METADATA, DCP_SHARD, open_dcp
from sae_geometry.sources.files.numpy import open_npy, open_npz
from sae_geometry.sources.files.safetensors import open_safetensors
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES, TensorFile, joined, under
from sae_geometry.sources.files.torch_zip import open_torch
from sae_geometry.sources.files.zip import open_zip
from sae_geometry.sources.plain import parse_json

_INDEX_SUFFIX = ".index.json"
_LONGEST_NAME = 500
_ZIP_START = b"PK\x03\x04"
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def open_weights(paths: Sequence[Path], tables: Sequence[str | None]) -> TensorFile:
    """Open a checkpoint of one or several files.

    Args:
        paths: files of the checkpoint; an index or a `.metadata` file, which locates the tensors, comes first.
        tables: prefix for the tensor names in each file, or None; a prefix tells apart equal names in several files.
    """
    first = paths[0]
    if first.name == DCP_METADATA or first.name.endswith(_INDEX_SUFFIX):
        if not first.is_file():
            raise SourceError(f"{first} is not a file")
        return _plainly_named(open_dcp(first)) if first.name == DCP_METADATA else _open_index(first)
    files = [open_tensors(path) for path in paths]
    return joined([file if table is None else under(file, table) for file, table in zip(files, tables, strict=True)])


def _open_index(index: Path) -> TensorFile:
    """Open the shards in a `….index.json` of huggingface_hub as one file."""
    owners = _weight_map(index)
    shards: dict[str, TensorFile] = {}
    for name in sorted(set(owners.values())):
        path = index.parent / name
        if not os.path.isfile(path):  # Path.is_file would raise for a name that is too long.
            raise SourceError(f"{index.name} lists {shown(name)}, which is missing in its folder; fetch it too")
        shards[name] = open_tensors(path)
    missing = [k for k, n in owners.items() if k not in shards[n].entries and k not in shards[n].unread]
    if missing:
        shard = shown(owners[missing[0]])
        raise SourceError(f"{index.name} assigns {missing[0]!r} to {shard}, which does not contain that tensor")
    one = next(iter(shards.values()))
    return TensorFile(
        index,
        one.container,
        {k: shards[n].entries[k] for k, n in owners.items() if k in shards[n].entries},
        lambda key, place=None: shards[owners[key]].read(key, place),
        metadata=one.metadata,
        unread={k: shards[n].unread[k] for k, n in owners.items() if k in shards[n].unread},
    )


def _weight_map(index: Path) -> dict[str, str]:
    if (n_bytes := index.stat().st_size) > MAX_HEADER_BYTES:
        raise SourceError(f"{index.name} has {n_bytes:,} bytes, above the limit of {MAX_HEADER_BYTES:,}; refused")
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        owners = {str(k): n for k, n in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{index.name} is not an index of shards: it has no table weight_map; give the weights file"
        ) from error
    wrong = [n for n in owners.values() if not isinstance(n, str) or "/" in n or "\\" in n or n in ("", ".", "..")]
    if wrong or not owners:
        said = f"lists {str(wrong[0])[:60]!r}, which is not a file next to it" if wrong else "lists no tensors"
        raise SourceError(f"{index.name} {said}; refused")
    return owners


def open_tensors(path: Path) -> TensorFile:
    """Open a .safetensors, torch, .npz or .npy file; the content determines the type, not the name."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SourceError(f"{path} is not a file")
        with path.open("rb") as f:
            head = f.read(512)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise SourceError(f"{path.name} is empty (0 bytes); fetch the file again")
    if path.name.endswith(DCP_SHARD):
        raise SourceError(f"{path.name} {_shard(path)}")
    opens = _opener(path, head)
    if opens is None:
        raise SourceError(f"{path.name} {_what_it_is(head, size)}")
    return _plainly_named(opens(path))


def _plainly_named(file: TensorFile) -> TensorFile:
    names = (*file.entries, *file.unread)
    strange = next((name for name in names if len(name) > _LONGEST_NAME or not name.isprintable()), None)
    if strange is not None:
        raise SourceError(f"{file.path.name}: the tensor name {strange[:80]!a} is too long or not printable; refused")
    return file


def _opener(path: Path, head: bytes) -> Callable[[Path], TensorFile] | None:
    if head.startswith((_ZIP_START, b"PK\x05\x06")):
        names = open_zip(FileBytes(path))
        return open_npz if names and all(n.endswith(".npy") for n in names) else open_torch
    if head.startswith(b"\x93NUMPY"):
        return open_npy
    if head.startswith(b"{") and (after := _after_json_line(path)) is not None:
        header, start = after
        return lambda path: replace(open_torch(path, start), metadata=header)
    return open_safetensors if len(head) > 8 and head[8:9] == b"{" and head[4:8] == b"\0\0\0\0" else None


def _after_json_line(path: Path) -> tuple[dict[str, object], int] | None:
    """Return the JSON table in the first line and the offset of torch's archive after it; None if one is missing."""
    with path.open("rb") as f:
        line = f.readline(MAX_HEADER_BYTES)
        if not line.endswith(b"\n") or f.read(len(_ZIP_START)) != _ZIP_START:
            return None
    try:
        table = parse_json(line)
    except ValueError:
        return None
    return (table, len(line)) if isinstance(table, dict) else None


def _shard(path: Path) -> str:
    whole = "is one shard of a torch.distributed.checkpoint: "
    if (path.parent / DCP_METADATA).is_file():
        return f"{whole}give its folder, {path.parent}"
    return (
        f"{whole}the .metadata that describes its contents is missing; give the whole folder, or convert "
        "it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pt"
    )


def _what_it_is(head: bytes, size: int) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights: the download returned a login or error page; fetch the file again"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run `git lfs pull`, or load the weights by their address"
    if text.startswith((b"{", b"[")):
        return "is JSON text, not weights: give the weights file instead"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        return "is a compressed archive: unpack it and give the weights file inside"
    if head.startswith(_PICKLE_STARTS):
        return (
            "is a bare pickle (torch's format before 1.6, or not torch's at all), which can run code when loaded; "
            "refused: if you trust the file, load it with torch and re-save its state_dict as safetensors"
        )
    if len(head) > 8 and any(head[:8]):
        return f"is not safetensors, a torch checkpoint, .npz or .npy: its {size:,} bytes start with {head[:8]!r}"
    return f"is not a file of tensors: its {size:,} bytes start with {head[:8]!r}"
