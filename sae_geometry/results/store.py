"""Saving and reading of results: Parquet tables, a summary with provenance, figures and a report."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from sae_geometry.io.atomic_folder import fresh_folder
from sae_geometry.io.escaping import json_escaped, readable
from sae_geometry.io.parquet import read_table, write_csv, write_table
from sae_geometry.io.progress import Progress
from sae_geometry.io.redaction import without_secrets
from sae_geometry.io.results_folder import SUMMARY, current_record, has, listed_files, manifest, read_json
from sae_geometry.kernels.ledger import entries
from sae_geometry.pairwise.label_columns import labeled_table
from sae_geometry.pairwise.same_space import ALLOWED
from sae_geometry.results.report import report_page
from sae_geometry.results.result import SCHEMA_VERSION, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
_PACKAGES = ("sae-geometry", "torch", "numpy", "numba", "scipy", "pandas", "umap-learn")


class Saved(NamedTuple):
    """Result read from a folder: its tables by name, and its summary."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]


def save(
    result: Result,
    folder: str | os.PathLike[str],
    *,
    command: str | None = None,
    formats: Sequence[str] = FORMATS,
    figures: Mapping[str, Figure] | None = None,
    overwrite: bool = False,
    add: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a result to a folder: its tables (parquet), lists (CSV), `summary.json`, `figures/` and `report.html`.

    The summary lists the sweeps (screen, reason, device) recorded since `kernels.ledger` was opened (the command line
    opens one for each command); a resumed comparison has only sweeps since it resumed. The folder is written elsewhere
    and moved into place at the end, so that it is either unchanged or complete; its path is returned.

    Args:
        result: any result of this package: see `results.result.Result`.
        folder: target folder; it must be empty or not exist, unless `overwrite` is set.
        command: command to record in the summary; the process's command line if None.
        formats: figure formats: png, pdf, svg.
        figures: the figures, by file name; `result.figures()` if None.
        overwrite: replace existing results.
        add: called with the folder before it is moved into place, to add files to it.
        progress: called with the current step ("tables", "figures", "report") and its completed fraction.

    Raises:
        FileExistsError: the folder cannot be written or replaced; see `io.atomic_folder.check_folder`.
        ValueError: not a result, or an unknown format.

    Example:
        >>> import sae_geometry as sg, tempfile
        >>> c = sg.compare("demo:local-seed0", "demo:local-seed1", matching="mutual")
        >>> sorted(p.name for p in sg.save(c, tempfile.mkdtemp(), formats=["png"]).iterdir() if p.suffix != ".csv")
        ['figures', 'matches.parquet', 'report.html', 'summary.json']
    """
    if not isinstance(result, Result):
        raise ValueError(f"save takes a result, as returned by compare, within, umap and others; got {result!r:.80}")
    said = without_secrets(command or " ".join(sys.argv))
    tick: Progress = progress or (lambda *_: None)
    with fresh_folder(Path(folder), overwrite) as aside:
        (aside / "figures").mkdir()
        tick("tables", 0.0)
        for name, table in result.tables().items():
            write_table(labeled_table(table, result.dictionaries), aside / f"{name}.parquet")
        for name, table in result.lists().items():
            write_csv(table, aside / f"{name}.csv")
        summary = result.summary()
        about = _about(result, summary)
        tick("tables", 1.0)
        tick("figures", 0.0)
        drawn = result.figures() if figures is None else figures
        for done, (name, figure) in enumerate(drawn.items(), 1):
            _save_figure(figure, aside / "figures" / name, about, formats)
            tick("figures", done / len(drawn))
        result.write_extra(aside)
        summary = {
            "schema_version": SCHEMA_VERSION,
            "kind": type(result).__name__,
            "command": said,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": software(),
            **summary,
            "sweeps": [asdict(entry) for entry in entries()],
        }
        write_json(aside / SUMMARY, summary)
        tick("report", 0.0)
        if add is not None:
            add(aside)
        explorer = "explorer.html" if (aside / "explorer.html").exists() else ""
        page = report_page(result, drawn, command=said, pictures=aside / "figures", explorer=explorer)
        (aside / "report.html").write_text(page, encoding="utf-8")
        write_json(aside / SUMMARY, {**summary, "files": manifest(aside)})
        tick("report", 1.0)
    return Path(folder)


def read(folder: str | os.PathLike[str]) -> Saved:
    """Read the tables, by name, and the summary of a results folder that `save` wrote.

    Raises:
        FileNotFoundError: not a results folder.
        ValueError: a file is damaged, is a link, or needs far more memory than a results table.

    Example:
        >>> import sae_geometry as sg, tempfile
        >>> folder = sg.save(sg.within("demo:local-narrow-seed0"), tempfile.mkdtemp(), formats=["png"])
        >>> tables, summary = sg.read(folder)
        >>> len(tables["matches"]), summary["kind"]
        (512, 'WithinComparison')
    """
    root = Path(folder)
    record = current_record(root)
    summary = read_json(root, SUMMARY) if has(root, SUMMARY) else {}
    names = [f for f in listed_files(root) if f.endswith(".parquet") and "/" not in f] if summary else []
    if not names:
        raise FileNotFoundError(
            f"{root} is not a results folder: it needs summary.json and at least one Parquet table; "
            "make one with sae-geometry compare, within or umap"
        )
    found = Saved({n.removesuffix(".parquet"): read_table(root, n) for n in names}, summary)
    return found if current_record(root) == record else read(folder)  # Another command may replace the results.


def software() -> dict[str, str]:
    """Return the versions of the packages that affect numerical results."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON; see `to_json`."""
    path.write_text(to_json(value) + "\n", encoding="utf-8")


def to_json(value: Any) -> str:
    """Return strict JSON that is safe to print: nan and infinities become null, numpy scalars plain numbers."""
    return json_escaped(readable(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value


def _save_figure(figure: Figure, stem: Path, about: dict[str, Any], formats: Sequence[str]) -> None:
    """Save a figure, annotated with any mismatch that the caller allowed."""
    from sae_geometry.plots import save_figure
    from sae_geometry.plots.style import WARNING, paper_style
    from sae_geometry.plots.text import put_note

    allowed = [c for c in about["caveats"] if c.endswith(ALLOWED)]
    if allowed:
        with paper_style():
            put_note(figure, "; ".join(allowed), WARNING)
    save_figure(figure, stem, about, formats)


def _about(result: Result, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the figures: runs, caveats and, for a layout, seed and backend."""
    runs = [{"name": d.name, "address": d.address, "fingerprint": d.fingerprint} for d in result.dictionaries]
    params = summary.get("params", {})
    return {"runs": runs, "caveats": list(result.caveats)} | {k: params[k] for k in ("seed", "backend") if k in params}
