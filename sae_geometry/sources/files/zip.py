"""The members of a zip archive, with the bounds that a hostile archive would break.

A directory of millions of entries, a few kilobytes that unpack to gigabytes, a checksum that does not match: each is
found before it costs anything, and said in one sentence.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES

_MAX_MEMBERS = 100_000
_CHUNK = 4 << 20
# float data deflates by a factor of a few; deflate's limit is 1032.
_MAX_RATIO = 100
_RATIO_MATTERS_ABOVE = 16 << 20


@dataclass(frozen=True)
class Member:
    """One file of the archive: its `n_bytes`, unpacked, and the byte it starts at (None if it is deflated)."""

    info: zipfile.ZipInfo
    n_bytes: int
    start: int | None


def open_zip(path: Path) -> tuple[zipfile.ZipFile, Mapping[str, Member]]:
    """The archive and its members by name.

    Raises:
        SourceError: truncated, damaged, encrypted, or built to exhaust memory.
    """
    _check_directory_size(path)
    try:
        archive = zipfile.ZipFile(path)
        if len(archive.infolist()) > _MAX_MEMBERS:
            raise SourceError(
                f"{path.name}: {len(archive.infolist()):,} members, more than any checkpoint has; refused"
            )
        with path.open("rb") as f:
            members = {i.filename: _member(i, f, path) for i in archive.infolist()}
    except SourceError:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        OSError,
        ValueError,
        struct.error,
        EOFError,
        RuntimeError,
    ) as error:
        raise SourceError(f"{path.name} is a damaged or truncated zip archive ({error}); fetch it again") from error
    if len(members) != len(archive.infolist()):
        raise SourceError(f"{path.name}: its zip directory names a member twice; refused")
    return archive, members


def read_member(archive: zipfile.ZipFile, member: Member, limit: int) -> bytes:
    """The whole of a small member, its checksum verified.

    Raises:
        SourceError: larger than `limit` bytes, or damaged.
    """
    label = f"{Path(str(archive.filename)).name}: {member.info.filename!r}"
    if member.n_bytes > limit:
        raise SourceError(f"{label} unpacks to {member.n_bytes:,} bytes, above the limit of {limit:,}; refused")
    try:
        with archive.open(member.info) as f:
            raw = f.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise SourceError(f"{label} is damaged ({error}); fetch the file again") from error
    if len(raw) != member.n_bytes:
        raise SourceError(f"{label} unpacks to another size than its directory says; the file is damaged")
    return raw


def check_stored(pages: memoryview, member: Member, name: str) -> None:
    """Verify the CRC-32 of a plainly stored member.

    Raises:
        SourceError: it does not match.
    """
    assert member.start is not None
    crc = 0
    for at in range(member.start, member.start + member.n_bytes, _CHUNK):
        crc = zlib.crc32(pages[at : min(at + _CHUNK, member.start + member.n_bytes)], crc)
    if crc != member.info.CRC:
        raise SourceError(f"{name}: the checksum of {member.info.filename!r} does not match: the file is damaged; "
                          "fetch it again")  # fmt: skip


def _member(info: zipfile.ZipInfo, f: object, path: Path) -> Member:
    if info.flag_bits & 0x1:
        raise SourceError(f"{path.name}: {info.filename!r} is encrypted; refused")
    label = f"{path.name}: {info.filename[:80]!r}"
    if info.compress_type != zipfile.ZIP_STORED:
        if info.file_size > _RATIO_MATTERS_ABOVE and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
            raise SourceError(
                f"{label} would unpack {info.compress_size:,} bytes to {info.file_size:,}: a zip bomb; refused"
            )
        return Member(info, info.file_size, None)
    f.seek(info.header_offset)  # type: ignore[attr-defined]
    local = f.read(30)  # type: ignore[attr-defined]
    if len(local) != 30 or local[:4] != b"PK\x03\x04":
        raise SourceError(f"{label} is not where the zip directory says; the file is damaged")
    n_name, n_extra = struct.unpack("<HH", local[26:30])
    start = info.header_offset + 30 + n_name + n_extra
    if info.compress_size != info.file_size or start + info.file_size > path.stat().st_size:
        raise SourceError(f"{label} reaches beyond the end of the file; the file is truncated or damaged")
    return Member(info, info.file_size, start)


def _check_directory_size(path: Path) -> None:
    """Refuse before `zipfile` reads a directory that is too large, which it would do whole."""
    size = path.stat().st_size
    with path.open("rb") as f:
        f.seek(max(0, size - (22 + 65535 + 20)))
        tail = f.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < 22:
            raise SourceError(f"{path.name} is a truncated zip archive: its directory is missing; fetch it again")
        n_bytes = struct.unpack("<I", tail[at + 12 : at + 16])[0]
        locator = tail[at - 20 : at] if at >= 20 else b""
        if locator[:4] == b"PK\x06\x07":
            f.seek(min(struct.unpack("<Q", locator[8:16])[0], size))
            record = f.read(56)
            if len(record) == 56 and record[:4] == b"PK\x06\x06":
                n_bytes = struct.unpack("<Q", record[40:48])[0]
    if n_bytes > MAX_HEADER_BYTES:
        raise SourceError(
            f"{path.name}: its zip directory claims {n_bytes:,} bytes, more than any checkpoint's; refused"
        )
