"""Opening a file of tensors by its first bytes, and saying what the file is when it is not one."""

from __future__ import annotations

import zipfile
from pathlib import Path

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.numpy import open_npy, open_npz
from sae_geometry.sources.files.safetensors import open_safetensors
from sae_geometry.sources.files.tensor_file import TensorFile
from sae_geometry.sources.files.torch_zip import open_torch

_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def open_tensors(path: Path) -> TensorFile:
    """The tensors of a .safetensors, torch, .npz or .npy file, told apart by content and not by name.

    Raises:
        SourceError: the file is missing, empty, damaged, hostile or of another kind; the message says which.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SourceError(f"{path} is not a file")
        with path.open("rb") as f:
            head = f.read(512)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise SourceError(f"{path.name} is empty (0 bytes); fetch it again")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _open_zip(path)
    if head.startswith(b"\x93NUMPY"):
        return open_npy(path)
    if len(head) > 8 and head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return open_safetensors(path)
    raise SourceError(f"{path.name} {_what_it_is(head, size)}")


def _open_zip(path: Path) -> TensorFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # open_torch says what is wrong with it
        names = []
    return open_npz(path) if names and all(n.endswith(".npy") for n in names) else open_torch(path)


def _what_it_is(head: bytes, size: int) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights: the download was answered by a login or error page; fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights it stands for: run `git lfs pull`, or fetch it by its address"
    if text.startswith((b"{", b"[")):
        return "is JSON text, not weights: give the weights file beside it"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        return "is a compressed archive: unpack it and give the weights file inside"
    if head.startswith(_PICKLE_STARTS):
        return (
            "is a bare pickle (torch's format before 1.6, or not torch's at all), which can run code when loaded; "
            "refused: where you trust it, load it there and re-save its state_dict as safetensors"
        )
    if len(head) > 8 and any(head[:8]):
        return f"is not safetensors, a torch checkpoint, .npz or .npy: its {size:,} bytes start with {head[:8]!r}"
    return f"is not a file of tensors: its {size:,} bytes start with {head[:8]!r}"
