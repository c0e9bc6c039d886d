"""Read members of a zip archive, with limits against hostile archives.

`zipfile` reads only the directory. Directories of millions of entries, false sizes, overlapping members and zip bombs
raise SourceError before they cost memory or time; a wrong checksum raises it when the member is read.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, cast

import numpy as np

from sae_geometry.io.formatting import counted
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes

# `zipfile` needs a second and 100 MB for 100,000 entries of 46 bytes and a name each; a checkpoint has only hundreds.
_MAX_DIRECTORY = 2 << 20
# Deflate compresses floating-point data by a small factor, and any data by a factor of at most 1032.
_MAX_RATIO = 100
_RATIO_MATTERS_ABOVE = 16 << 20
_HAS_DESCRIPTOR = 0x8  # flag of a member with a descriptor (checksum and sizes) after its data
_DESCRIPTORS = {12, 16, 20, 24}  # sizes of a descriptor in bytes: 32 or 64 bits, with or without signature


@dataclass(frozen=True)
class Member:
    """A file in a zip archive, with its packed and unpacked sizes and the CRC-32 of its unpacked data."""

    name: str
    start: int
    n_packed: int
    n_bytes: int
    deflated: bool
    crc: int


class _Bounded:
    """File object for `zipfile` on a byte range of a file; a single read cannot exceed the limit on directories."""

    def __init__(self, opened: IO[bytes], file: FileBytes) -> None:
        self._opened, self._file = opened, file
        self.seekable = opened.seekable

    def tell(self) -> int:
        return self._opened.tell() - self._file.start

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (0, self.tell(), self._file.size)[whence]
        if place < 0:
            raise OSError("cannot seek before the beginning")
        return self._opened.seek(self._file.start + place) - self._file.start

    def read(self, n: int = -1) -> bytes:
        if n > _MAX_DIRECTORY:
            raise SourceError(
                f"{self._file.path.name}: its zip directory claims {n:,} bytes, above the limit of {_MAX_DIRECTORY:,}"
            )
        left = max(0, self._file.size - self.tell())
        return self._opened.read(min(left, _MAX_DIRECTORY if n < 0 else n))


def open_zip(file: FileBytes) -> Mapping[str, Member]:
    """Return the members of a zip archive, by name."""
    name = file.path.name
    _check_end(file)
    try:
        with file.opened() as f:
            with zipfile.ZipFile(cast(IO[bytes], _Bounded(f, file))) as archive:
                infos, directory = archive.infolist(), archive.start_dir
            members = {i.filename: _member(i, f, file) for i in infos}
    except SourceError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error, EOFError) as error:
        raise SourceError(f"{name} is a damaged or truncated zip archive ({error}); fetch the file again") from error
    if len(members) != len(infos):
        raise SourceError(f"{name}: its zip directory lists a member twice; refused")
    before = min((i.header_offset for i in infos), default=0)
    if before:
        raise SourceError(f"{name} {_explain_bytes_before(file, before)}")
    in_order = sorted(infos, key=lambda i: i.header_offset)
    for info, following in zip(in_order, [*(i.header_offset for i in in_order), directory][1:], strict=True):
        member = members[info.filename]
        gap = following - (member.start + member.n_packed)
        if gap < 0:
            raise SourceError(f"{name}: {member.name!r} shares its bytes with another member; refused")
        if gap and not (info.flag_bits & _HAS_DESCRIPTOR and gap in _DESCRIPTORS):
            raise SourceError(
                f"{name} has {counted(gap, 'byte')} between the members of its zip archive; refused: re-save the file"
            )
    return members


def _check_end(file: FileBytes) -> None:
    """Raise SourceError if bytes follow the archive, since `zipfile` would ignore them."""
    start = max(0, file.size - (22 + 65535))
    tail = file.read(start, file.size - start).tobytes()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return  # `zipfile` raises for a missing end record.
    after = len(tail) - (at + 22 + struct.unpack("<H", tail[at + 20 : at + 22])[0])
    if after > 0:
        raise SourceError(
            f"{file.path.name} has {counted(after, 'byte')} after its zip archive; refused: re-save the file"
        )


def _explain_bytes_before(file: FileBytes, before: int) -> str:
    if file.read(0, 4).tobytes() != b"PK\x03\x04":
        return f"has {counted(before, 'byte')} before its zip archive; refused: re-save the file"
    return (
        "is several archives end to end, as written by repeated torch.save calls on one file, or by "
        "torch.distributed.checkpoint to its shards; refused, since only the last could be read: for a shard, give the "
        "folder with .metadata or convert it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        "FOLDER OUT.pt; otherwise, save one state_dict per file"
    )


def read_member(file: FileBytes, member: Member, limit: int) -> np.ndarray:
    """Read a whole member as uint8, and verify its checksum."""
    label = f"{file.path.name}: {member.name!r}"
    if member.n_bytes > limit:
        raise SourceError(f"{label} unpacks to {member.n_bytes:,} bytes, above the limit of {limit:,}; refused")
    if not member.deflated:
        return read_checked(file, member, 0, member.n_bytes)
    raw = _inflated(file.read(member.start, member.n_packed), member.n_bytes + 1, label)
    if len(raw) != member.n_bytes:
        raise SourceError(f"{label} does not unpack to the size stated in the zip directory; the file is damaged")
    _check_crc(zlib.crc32(raw), member, file)
    return np.frombuffer(raw, dtype=np.uint8)


def read_start(file: FileBytes, member: Member, n_bytes: int) -> bytes:
    """Return at most the first `n_bytes` unpacked bytes of a member, without verifying its checksum."""
    raw = file.read(member.start, min(member.n_packed, n_bytes))
    return bytes(_inflated(raw, n_bytes, f"{file.path.name}: {member.name!r}")) if member.deflated else raw.tobytes()


def read_checked(file: FileBytes, member: Member, first: int, wanted: int) -> np.ndarray:
    """Read `wanted` bytes from byte `first` of an uncompressed member as uint8, and verify the member's checksum."""
    raw, crc = file.checked(member.start, member.n_bytes, first, wanted)
    _check_crc(crc, member, file)
    return raw


def _inflated(packed: np.ndarray, most: int, label: str) -> bytearray:
    try:
        return bytearray(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed.data, most))
    except zlib.error as error:
        raise SourceError(f"{label} is damaged ({error}); fetch the file again") from error


def _check_crc(crc: int, member: Member, file: FileBytes) -> None:
    if crc != member.crc:
        raise SourceError(
            f"{file.path.name}: the checksum of {member.name!r} does not match: the file is damaged; fetch it again"
        )


def _member(info: zipfile.ZipInfo, f: IO[bytes], file: FileBytes) -> Member:
    name = info.filename[:80]
    label = f"{file.path.name}: {name!r}"
    if info.flag_bits & 0x1:
        raise SourceError(f"{label} is encrypted; refused")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f"{label} is compressed with method {info.compress_type}, which no checkpoint uses; refused")
    f.seek(file.start + info.header_offset)
    local = f.read(30)
    if len(local) != 30 or local[:4] != b"PK\x03\x04":
        raise SourceError(f"{label} is not at the position in the zip directory; the file is damaged")
    n_name, n_extra = struct.unpack("<HH", local[26:30])
    start = info.header_offset + 30 + n_name + n_extra
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if start + info.compress_size > file.size or not (deflated or info.compress_size == info.file_size):
        raise SourceError(f"{label} reaches beyond the end of the file; the file is truncated or damaged")
    if info.file_size > max(_RATIO_MATTERS_ABOVE, _MAX_RATIO * info.compress_size):
        raise SourceError(
            f"{label} would unpack {info.compress_size:,} bytes to {info.file_size:,}: a zip bomb; refused"
        )
    return Member(name, start, info.compress_size, info.file_size, deflated, info.CRC)
