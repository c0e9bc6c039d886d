"""Report of a result: one self-contained HTML page with the answer, figures, lists, definitions and methods."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import printable, shown
from sae_geometry.io.formatting import counted
from sae_geometry.pairwise.label_columns import labeled_list
from sae_geometry.results.columns import columns_of
from sae_geometry.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 200  # rows of each list on the page
_SIMILARITIES = ("cosine", "max_cosine", "decoder_cosine", "mmcs")
_CITATION = "sae-geometry 0.1.0, exact geometric comparison of sparse autoencoder dictionaries"
_STYLE, _SCRIPT = (files(__package__).joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
_STYLE_HASH, _SCRIPT_HASH = (
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT)
)
# Allow only the page's own style, script and embedded images, and no network requests.
_POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'; script-src 'sha256-{_SCRIPT_HASH}'"


def report_page(
    result: Result,
    figures: Mapping[str, Figure],
    *,
    command: str = "",
    pictures: Path | None = None,
    explorer: str = "",
) -> str:
    """Return the HTML report of a result, a page that makes no network requests.

    Args:
        command: the command that made the result.
        pictures: folder of saved figures (NAME.png) to embed; missing figures are drawn.
        explorer: file name of an explorer in the same folder, to link to.
    """
    title = f"{type(result).__name__}: {', '.join(shown(d.name, 60) for d in list(result.dictionaries)[:6])}"
    sentences, meanings = result.sentences, result.meanings
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="answer">{escape(sentences)}</p>' if sentences else "",
        _text(result.answer()),
        f'<p><a href="{escape(explorer)}">Open the explorer</a></p>' if explorer else "",
        "" if meanings is None else _wide(meanings.html()),
        *(_figure(name, figure, pictures) for name, figure in figures.items()),
        *(_list(file, table, n) for file, (table, n) in _listed(result).items()),
        f"<details><summary>Checks and definitions</summary>{_text(result.details())}</details>",
        f"<h2>For a methods section</h2><p>{escape(printable(_methods(result)))}</p>",
        f"<h2>How it was made</h2>{_text(command)}" if command else "",
        f'<p class="note">{escape(_CITATION)}. summary.json, in the same folder, has all numbers.</p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _text(text: str) -> str:
    return f'<pre tabindex="0">{escape(printable(text))}</pre>'


def _figure(name: str, figure: Figure, pictures: Path | None) -> str:
    saved = None if pictures is None else pictures / f"{name}.png"
    if saved is not None and saved.exists():
        content = saved.read_bytes()
    else:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # The font may lack a character.
            figure.savefig(buffer, format="png", dpi=160)
        content = buffer.getvalue()
    data = base64.b64encode(content).decode()
    return f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}"></figure>'


def _listed(result: Result) -> dict[str, tuple[pd.DataFrame, int]]:
    """Return (rows to show, number of rows) by file name, of the lists or, if there are no lists, of the tables."""
    if lists := result.lists():
        return {f"{name}.csv": (table.head(_ROWS), len(table)) for name, table in lists.items()}
    found = {}
    for name, table in result.tables().items():
        by = next((column for column in _SIMILARITIES if column in table.columns), None)
        rows = table if by is None else table.sort_values(by, ascending=False, kind="stable")
        found[f"{name}.parquet"] = labeled_list(rows.head(_ROWS), result.dictionaries), len(table)
    return found


def _list(file: str, table: pd.DataFrame, n: int) -> str:
    name = file.partition(".")[0]
    if table.empty:
        return f"<h2>{escape(name)}</h2><p>none</p>"
    more = f' <span class="note">(first {_ROWS} of {n:,}; {escape(file)} has all rows)</span>'
    meanings = {c: f"{unit}: {meaning}" for c, (unit, meaning) in columns_of(file).items()}
    head = "".join(
        f'<th><button type="button" title="{escape(meanings.get(c, ""))}">{escape(str(c))}</button></th>'
        for c in table.columns
    )
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(_cell(v))}</td>' for v in row)}</tr>" for row in table.itertuples(index=False)
    )
    return (
        f"<h2>{escape(name)}: {n:,}{more if n > _ROWS else ''}</h2>"
        f"{_wide(f'<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>')}"
    )


def _wide(html: str) -> str:
    """Return the HTML in an element that scrolls sideways, also by keyboard, if wider than the page."""
    return f'<div class="wide" tabindex="0">{html}</div>'


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _methods(result: Result) -> str:
    """Return a methods paragraph for a paper, with the dictionaries and the software."""
    runs = "; ".join(_input(d) for d in list(result.dictionaries)[:12])
    more = len(result.dictionaries) - 12
    return f"{result.method} Dictionaries: {runs}{f'; and {more:,} more' if more > 0 else ''}. Software: {_CITATION}."


def _input(d: Dictionary) -> str:
    mapped = "" if d.unmapped is None else f", mapped by {d.metadata['map']!r} (sha256 {d.metadata['map_sha256'][:16]})"
    return (
        f"{shown(d.name, 60)} ({counted(d.n_latents, 'latent')} × {d.d_in:,}, {shown(d.alive.describe())}{mapped}, "
        f"weights {d.fingerprint[:12]})"
    )
