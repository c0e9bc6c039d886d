"""Results on disk: parquet tables, a summary with provenance, and figures, written atomically."""

from __future__ import annotations

import json
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sae_geometry.comparisons.checkpoints import Drift
from sae_geometry.comparisons.pair import Comparison
from sae_geometry.comparisons.within import WithinComparison
from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.embedding import Embedding
from sae_geometry.io.atomic_folder import fresh_folder
from sae_geometry.io.escaping import json_escaped, readable
from sae_geometry.io.parquet import read_table, write_neuronpedia, write_table
from sae_geometry.io.redaction import without_secrets
from sae_geometry.io.results_folder import has, manifest, read_json
from sae_geometry.kernels.ledger import entries
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.pairwise.same_space import ALLOWED
from sae_geometry.sources import neuronpedia_lists

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
FORMATS = ("png", "pdf")
# `read` returns the first of these tables that exists.
_TABLES = ("matches", "umap", "drift", "split", "pairs", "agreement", "span", "tokens")
_SQUARE = (3.6, 4.1)  # inches: a UMAP with its legend and evidence
_PACKAGES = ("sae-geometry", "torch", "numpy", "numba", "scipy", "pandas", "umap-learn")


@runtime_checkable
class Saved(Protocol):
    """A result that defines its saved tables and figures. `read` returns its first table."""

    def summary(self) -> dict[str, Any]: ...
    def tables(self) -> Mapping[str, pd.DataFrame]: ...
    def figures(self) -> Mapping[str, Figure]: ...
    @property
    def dictionaries(self) -> Sequence[Dictionary]: ...
    @property
    def caveats(self) -> Sequence[str]: ...


@runtime_checkable
class WritesMore(Protocol):
    """A result with further files, apart from tables and figures."""

    def write_extra(self, folder: Path) -> None: ...


Result = Comparison | WithinComparison | Embedding | Drift | Saved


def save(
    result: Result,
    folder: str | os.PathLike[str],
    *,
    command: str | None = None,
    formats: Sequence[str] = FORMATS,
    style: str = "okabe-ito",
    colors: Sequence[str] = (),
    overwrite: bool = False,
    add: Callable[[Path], object] | None = None,
) -> Path:
    """Write a result to a folder: its tables (parquet), `summary.json` and `figures/`.

    The summary lists the sweeps since `kernels.ledger` was opened, as the command line does: screen, reason, device;
    for a resumed comparison, those since it resumed. The folder is written elsewhere and moved into place at the end,
    so that it is either unchanged or complete.

    Args:
        result: a Comparison (`matches.parquet`), WithinComparison (`matches.parquet`), Embedding (`umap.parquet`,
            `regions.json`, `neuronpedia.csv`), Drift (`drift.parquet`), or any result with `tables()` and `figures()`:
            a parquet file and a figure for each.
        folder: target folder; must not exist, or be empty, unless `overwrite`.
        command: recorded in the summary; the process's command line if None.
        formats: figure formats: png, pdf, svg.
        style: color scheme of embeddings: "okabe-ito" or "e2e".
        colors: further figures of an embedding, each colored by one of max-cosine, matched, frequency; those by run
            and by region are always saved.
        overwrite: replace existing results.
        add: called with the finished folder before it is moved into place, to add files.

    Returns:
        The folder.

    Raises:
        FileExistsError: see `folders.check_folder`.
        ValueError: not a result, or an unknown format.

    Example:
        >>> import sae_geometry as sg, tempfile
        >>> c = sg.compare("demo:local-seed0", "demo:local-seed1", matching="mutual")
        >>> sorted(p.name for p in sg.save(c, tempfile.mkdtemp(), formats=["png"]).iterdir())
        ['figures', 'matches.parquet', 'summary.json']
    """
    write = _writer(result)
    with fresh_folder(Path(folder), overwrite) as aside:
        figures = aside / "figures"
        figures.mkdir()
        summary = {
            "schema_version": SCHEMA_VERSION,
            "kind": type(result).__name__,
            "command": without_secrets(command or " ".join(sys.argv)),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": software(),
            **write(result, aside, figures, formats, style),
            **({"further_figures": _colored(result, colors, figures, formats)} if colors else {}),
            "sweeps": [asdict(entry) for entry in entries()],
        }
        _write_json(aside / "summary.json", summary)
        if add is not None:
            add(aside)
        _write_json(aside / "summary.json", {**summary, "files": manifest(aside)})
    return Path(folder)


def read(folder: str | os.PathLike[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the table and the summary of a results folder that `save` wrote.

    Raises:
        FileNotFoundError: not a results folder.
        ValueError: a file is damaged, is a link, or needs far more memory than a results table.
    """
    root = Path(folder)
    tables = [f"{name}.parquet" for name in _TABLES if has(root, f"{name}.parquet")]
    if not tables or not has(root, "summary.json"):
        raise FileNotFoundError(
            f"{root} is not a results folder: it needs summary.json and one of our tables; "
            "make one with sae-geometry compare, within or umap"
        )
    return read_table(root, tables[0]), read_json(root, "summary.json")


def matches_table(c: Comparison) -> pd.DataFrame:
    """Return one row per latent and direction, with its nearest and its one-to-one partner.

    Columns: direction, run, latent_id, partner_run, partner_id, cosine, mutual, q_value, significant,
    one_to_one_partner_id, one_to_one_cosine, one_to_one_matching, alive and frequency
    (null when unknown).
    """
    import pandas as pd

    paired = c.one_to_one()
    parts = []
    for direction, d, nearest, single in (
        ("a_to_b", c.a, c.nearest_a_to_b, paired.a_to_b),
        ("b_to_a", c.b, c.nearest_b_to_a, paired.b_to_a),
    ):
        frame = _nearest_table(d, nearest)
        frame.insert(0, "direction", direction)
        at = list(frame.columns).index("alive")
        frame.insert(at, "one_to_one_partner_id", single.partner)
        frame.insert(at + 1, "one_to_one_cosine", single.cosine)
        frame.insert(at + 2, "one_to_one_matching", single.method)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def regions_record(e: Embedding) -> dict[str, Any]:
    """Return the contents of `regions.json`: counts, test, outline and latent ids per region, and links to lists.

    `neuronpedia_lists` are addresses of quick lists of at most 150 latents each, for latents with known pages.
    """
    found = e.regions
    regions = []
    for region in found.regions:
        owner, ids = e.owner[region.members], e.latent_id[region.members]
        links = neuronpedia_lists(
            ((e.dictionaries[o], int(i)) for o, i in zip(owner, ids, strict=True)), f"region {region.letter}"
        )
        by_run = [
            {
                "run": name,
                "count": int(region.counts[r]),
                "share_at_equal_sizes": float(region.shares[r]),
                "p": float(region.p_values[r]),
                "q": float(region.q_values[r]),
                "latent_ids": ids[owner == r].tolist(),
            }
            for r, name in enumerate(e.names)
        ]
        regions.append(
            {
                "letter": region.letter,
                "size": region.size,
                "verdict": region.verdict,
                "center": list(region.center),
                "outline": [list(corner) for corner in region.outline],
                "runs": by_run,
                "neuronpedia_lists": links,
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "how": found.how,
        "params": dict(found.params),
        "test": found.test_in_words(),
        "runs": [{"run": name, "count": int(n)} for name, n in zip(found.names, found.totals, strict=True)],
        "share_inside": found.share_inside,
        "regions": regions,
    }


def software() -> dict[str, str]:
    """Return the versions of the packages that affect the numbers."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _write_json(path: Path, value: Any) -> None:
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


def _nearest_table(d: Dictionary, nearest: Matching) -> pd.DataFrame:
    import pandas as pd

    frame = nearest.to_pandas().drop(columns="matching")
    alive = [None] * d.n_latents if d.alive_mask is None else d.alive_mask.tolist()
    frame["alive"] = pd.array(alive, dtype="boolean")
    frequency = [None] * d.n_latents if d.frequency is None else d.frequency.tolist()
    frame["frequency"] = pd.array(frequency, dtype="Float64")
    return frame


def _writer(result: Result) -> Callable[..., dict[str, Any]]:
    for kind, write in (
        (Comparison, _comparison),
        (WithinComparison, _within),
        (Embedding, _embedding),
        (Drift, _drift),
    ):
        if isinstance(result, kind):
            return write
    if isinstance(result, Saved):
        return _saved
    raise ValueError(
        f"save takes what compare, compare_within, embed or compare_checkpoints returned; got {type(result).__name__}"
    )


def _saved(r: Saved, folder: Path, figures: Path, formats: Sequence[str], style: str) -> dict[str, Any]:
    for name, table in r.tables().items():
        write_table(table, folder / f"{name}.parquet")
    for name, figure in r.figures().items():
        _save_figure(figure, figures / name, _about(r.dictionaries, r.caveats), formats)
    if isinstance(r, WritesMore):
        r.write_extra(folder)
    return r.summary()


def _drift(d: Drift, folder: Path, figures: Path, formats: Sequence[str], style: str) -> dict[str, Any]:
    write_table(d.to_pandas(), folder / "drift.parquet")
    _save_axes(lambda ax: d.plot(ax=ax), (3.4, 2.4), figures / "drift", _about([d.final]), formats)
    return d.summary()


def _comparison(c: Comparison, folder: Path, figures: Path, formats: Sequence[str], style: str) -> dict[str, Any]:
    from sae_geometry import plots

    paired = c.one_to_one()
    write_table(matches_table(c), folder / "matches.parquet")
    about = _about([c.a, c.b], c.caveats)
    curves = [c.nearest_a_to_b, c.nearest_b_to_a, paired.a_to_b, paired.b_to_a]
    _save_figure(plots.similarity_figure(curves), figures / "similarity", about, formats)
    _save_axes(
        lambda ax: plots.multiplicity_bars(curves[:2], ax=ax), (3.6, 2.4), figures / "multiplicity", about, formats
    )
    summary = c.summary()
    if "double_counting" in summary:
        _save_axes(lambda ax: c.plot_double_counting(ax=ax), (3.8, 2.1), figures / "double_counting", about, formats)
    if c.matching == "nearest":
        summary["one_to_one"] = {
            "matching": paired.matching,
            "a_to_b": paired.a_to_b.summary(),
            "b_to_a": paired.b_to_a.summary(),
            "certificate": paired.certificate(),
        }
    return summary


def _within(w: WithinComparison, folder: Path, figures: Path, formats: Sequence[str], style: str) -> dict[str, Any]:
    from sae_geometry import plots

    write_table(_nearest_table(w.dictionary, w.nearest), folder / "matches.parquet")
    _save_figure(plots.similarity_figure([w.nearest]), figures / "within", _about([w.dictionary], w.caveats), formats)
    return w.summary()


def _embedding(e: Embedding, folder: Path, figures: Path, formats: Sequence[str], style: str) -> dict[str, Any]:
    from sae_geometry import plots

    table = e.to_pandas()
    write_table(table, folder / "umap.parquet")
    write_neuronpedia(table, folder / "neuronpedia.csv")
    _write_json(folder / "regions.json", regions_record(e))
    about = _about(e.dictionaries, e.caveats) | {"seed": e.params["seed"], "backend": e.params["backend"]}
    pictures: tuple[tuple[str, Any], ...] = (("umap", "owner"), ("regions", "region"))
    for name, color in pictures:
        _save_axes(_drawing(e, style, color), _SQUARE, figures / name, about, formats)
    if len(e.names) > 1:
        _save_figure(plots.runs_figure(e, style), figures / "runs", about, formats)
    if e.across() is not None:
        _save_axes(lambda ax: plots.unmatched_scatter(e, ax, style), (3.6, 4.0), figures / "unmatched", about, formats)
    return e.summary()


def _drawing(e: Embedding, style: str, color: Any) -> Callable[[Any], Any]:
    from sae_geometry import plots

    return lambda ax: plots.embedding_scatter(e, ax, style, color=color)


def _colored(result: Result, colors: Sequence[str], figures: Path, formats: Sequence[str]) -> list[str]:
    """Write the figures of an embedding with other colors than the run's; return their names."""
    from sae_geometry import plots

    if not isinstance(result, Embedding):
        raise ValueError(f"colors are of an embedding's figures; got {type(result).__name__}")
    plots.check_colors(colors, result.dictionaries)
    about = _about(result.dictionaries, result.caveats) | {"seed": result.params["seed"]}
    further: list[Any] = [c for c in dict.fromkeys(colors) if c not in ("owner", "region")]
    for color in further:
        _save_axes(_drawing(result, "okabe-ito", color), _SQUARE, figures / f"umap-{color}", about, formats)
    return [f"umap-{color}" for color in further]


def _save_axes(
    draw: Callable[[Any], Any], size: tuple[float, float], stem: Path, about: dict[str, Any], formats: Sequence[str]
) -> None:
    from sae_geometry.plots.style import new_figure, paper_style

    with paper_style():
        figure = new_figure(*size)
        draw(figure.subplots())
    _save_figure(figure, stem, about, formats)


def _save_figure(figure: Figure, stem: Path, about: dict[str, Any], formats: Sequence[str]) -> None:
    """Write a figure, annotated with any mismatch that the caller allowed."""
    from sae_geometry.plots import save_figure
    from sae_geometry.plots.style import WARNING, literal

    allowed = [literal(c) for c in about["caveats"] if c.endswith(ALLOWED)]
    if allowed:
        lines = textwrap.wrap("; ".join(allowed), int(figure.get_figwidth() * 22))
        figure.supxlabel("\n".join(lines), fontsize=6, color=WARNING, x=0.02, ha="left")
    save_figure(figure, stem, about, formats)


def _about(dictionaries: Sequence[Dictionary], caveats: Sequence[str] = ()) -> dict[str, Any]:
    runs = [{"name": d.name, "address": d.address, "fingerprint": d.fingerprint} for d in dictionaries]
    return {"runs": runs, "caveats": list(caveats)}
