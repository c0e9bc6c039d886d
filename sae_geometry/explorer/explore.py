"""Entry point of the explorer, which writes the page of an embedding or a flow."""

from __future__ import annotations

import os
from pathlib import Path

from sae_geometry.comparisons.flow_result import Flow
from sae_geometry.embedding.embedding import Embedding
from sae_geometry.explorer.contents import Contents, contents_of, read_contents, read_shown
from sae_geometry.explorer.flow_contents import contents_of_flow, read_flow
from sae_geometry.explorer.writing import page
from sae_geometry.io.atomic_folder import check_writable, whole_file
from sae_geometry.io.results_folder import PAGE, sealed


def explore(
    source: Embedding | Flow | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a UMAP or a flow as one HTML file with hover, search, filters and lasso, and return its path.

    The file needs neither a network nor other files, so it can be shared. A link to the file that ends with
    `#run=NAME&latent=ID` selects a latent.

    Args:
        source: an Embedding or a Flow, or the folder it was saved to.
        path: the file to write; explorer.html in the folder if None.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: the file exists and `overwrite` is not set.
        FileNotFoundError: the folder holds no results.
        ImportError: plotly is not installed.
        ValueError: a result in memory without a path, more than 24 runs, or results of a different kind or version.

    Example:
        >>> import sae_geometry as sg, tempfile, pathlib
        >>> e = sg.umap(["demo:local-narrow-seed0"], n_epochs=20)
        >>> sg.explore(e, pathlib.Path(tempfile.mkdtemp()) / "explorer.html").name
        'explorer.html'
    """
    if isinstance(source, Embedding | Flow):
        if path is None:
            raise ValueError("a result in memory has no folder; name the file, as in explore(result, 'explorer.html')")
        target = Path(path)
        _check_free(target, overwrite)
        contents = contents_of(source) if isinstance(source, Embedding) else contents_of_flow(source)
    else:
        target = Path(source) / PAGE if path is None else Path(path)
        contents = _read(Path(source))
        _check_free(target, overwrite)
    _write(contents, target)
    return target


def add_page(folder: Path) -> None:
    """Write the explorer into a results folder that is still being written."""
    _write(_read(folder), folder / PAGE)


def _read(folder: Path) -> Contents:
    summary = read_shown(folder)
    return read_flow(folder, summary) if summary["kind"] == "Flow" else read_contents(folder)


def _check_free(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder; give a file with -o")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; give another file with -o, or --overwrite to replace it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")
    check_writable(target.parent, "file")


def _write(contents: Contents, target: Path) -> None:
    made = sealed(page(contents))
    with whole_file(target) as file:
        file.write(made)
