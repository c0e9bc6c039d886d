"""Tests of files that change while they are read, and of partial checksums."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from sae_geometry.sources.files.bytes import FileBytes

CUT = """
import sys
from pathlib import Path
from sae_geometry.sources.files.open import open_tensors

for whole in sorted(Path(sys.argv[1]).iterdir()):
    for at, change in enumerate(sys.argv[2:]):
        path = whole.with_stem(f"copy{at}")
        path.write_bytes(whole.read_bytes())
        file = open_tensors(path)
        exec(change)
        try:
            for key in file.entries:
                file.read(key).sum()
            print(whole, "is read as if nothing had happened")
        except ValueError as error:
            print(error)
"""
CHANGES = (
    "import os; os.truncate(path, 9000)",
    "import os; os.truncate(path, 0)",
    "raw = bytearray(path.read_bytes()); raw[-9] ^= 1; path.write_bytes(raw)",
    "path.write_bytes(path.read_bytes() + b'more')",
    "path.with_name('y').write_bytes(path.read_bytes()); path.with_name('y').replace(path)",
    "import os; s = path.stat(); path.open('r+b').write(b'x'); os.utime(path, ns=(s.st_atime_ns, s.st_mtime_ns))",
    "path.unlink()",
)


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    w = torch.ones(256, 64)
    save_file({"W_dec": w}, tmp_path / "x.safetensors")
    torch.save({"W_dec": w}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", W_dec=w.numpy())
    np.save(tmp_path / "x.npy", w.numpy())
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", CUT, str(tmp_path), *CHANGES], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr  # A memory-mapped file would end the process with SIGBUS.
    said = done.stdout.splitlines()
    assert len(said) == 4 * len(CHANGES)
    assert all("was changed while it was being read" in line or "cannot be read" in line for line in said), said


def test_crc_of_part_of_a_storage(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(raw := bytes(range(256)) * 50_000)
    part, crc = FileBytes(tmp_path / "x").checked(100, len(raw) - 300, 4_194_200, 5000)
    assert (part.tobytes(), crc) == (raw[100 + 4_194_200 :][:5000], zlib.crc32(raw[100:-200]))
