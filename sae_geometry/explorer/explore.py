"""Public entry point: `explore` writes the page of an embedding."""

from __future__ import annotations

import os
from pathlib import Path

from sae_geometry.embedding.embedding import Embedding
from sae_geometry.explorer.contents import Contents, contents_of, read_contents
from sae_geometry.explorer.writing import page
from sae_geometry.io.atomic_folder import whole_file

FILE = "explorer.html"


def explore(
    source: Embedding | str | os.PathLike[str], path: str | os.PathLike[str] | None = None, *, overwrite: bool = False
) -> Path:
    """Write a UMAP as one HTML file with hover, search, filters, lasso and links to partners.

    The file needs no network and no other file, so it can be sent on. `#run=NAME&latent=ID` at the end of its address
    opens it at a latent.

    Args:
        source: an Embedding, or the folder it was saved to.
        path: the file to write; explorer.html in the folder if None.
        overwrite: replace an existing file.

    Returns:
        Path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is not set.
        FileNotFoundError: the folder holds no results.
        ImportError: plotly is not installed.
        ValueError: an embedding without a path, or results of a different kind or version.

    Example:
        >>> import sae_geometry as sg, tempfile, pathlib
        >>> e = sg.umap(["demo:local-narrow-seed0"], n_epochs=20)
        >>> sg.explore(e, pathlib.Path(tempfile.mkdtemp()) / "explorer.html").name
        'explorer.html'
    """
    if isinstance(source, Embedding):
        if path is None:
            raise ValueError("an embedding in memory has no folder: name the file, explore(embedding, 'explorer.html')")
        target = Path(path)
        _check_free(target, overwrite)
        contents = contents_of(source)
    else:
        target = Path(source) / FILE if path is None else Path(path)
        contents = read_contents(Path(source))
        _check_free(target, overwrite)
    _write(contents, target)
    return target


def add_page(folder: Path) -> None:
    """Add the page to a results folder that is being written."""
    _write(read_contents(folder), folder / FILE)


def _check_free(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder; give a file with -o")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; give another file with -o, or --overwrite to replace it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")


def _write(contents: Contents, target: Path) -> None:
    text = page(contents)
    with whole_file(target) as file:
        file.write(text.encode())
