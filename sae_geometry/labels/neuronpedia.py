"""Read explanations and densities from Neuronpedia's public exports, gzipped JSON lines in numbered batches.

An export has `MODEL/SOURCE/features/batch-N.jsonl.gz` and `MODEL/SOURCE/explanations/batch-N.jsonl.gz`; explanations by
another explainer are in `explanations-NAME/`. Ids do not follow the order of the batches, so all batches are read.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_geometry.io.escaping import shown
from sae_geometry.io.labels import Labels
from sae_geometry.sources.plain import parse_json

_BATCH = re.compile(r"batch-(\d+)\.jsonl\.gz")
_MOST_LINE = 8 << 20
_ALWAYS, _TIMES = 64 << 20, 100  # allowed decompressed bytes: _ALWAYS + _TIMES × total file size
_MOST_ID = 1 << 31


class ExportError(ValueError):
    """An export is incomplete or damaged, or belongs to another dictionary."""


@dataclass(frozen=True)
class Export:
    """A Neuronpedia export, read as labels for the latents of one dictionary.

    Attributes:
        explainer: "MODEL" or "MODEL (METHOD)" that wrote the explanations; None if there are no explanations.
        others: number of unused explanations by each other explainer.
    """

    source: str
    labels: Labels
    explainer: str | None
    others: Mapping[str, int]


def read_export(folder: Path, source: str) -> Export:
    """Read an export of `source` (MODEL/SOURCE), with the explanations of the explainer that wrote the most.

    `folder` is the export's own folder, or a folder that contains MODEL/SOURCE. Every record must name the source.
    """
    root = folder / source if (folder / source).is_dir() else folder
    kinds = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    features = [p for p in kinds if p.name == "features"]
    explained = [p for p in kinds if re.fullmatch(r"explanations(-.+)?", p.name)]
    if not features and not explained:
        raise ExportError(
            f"{folder} has no export of {source}: expected batch-0.jsonl.gz in {source}/features or "
            f"{source}/explanations"
        )
    columns: dict[str, dict[int, Any]] = {}
    sources: dict[str, str] = {}
    for part in features:
        for record in _records(part, source):
            _take_feature(columns, record)
    sources |= dict.fromkeys(columns, f"Neuronpedia, {source}")
    chosen, others = None, dict[str, int]()
    if explained:
        table, chosen, others = _explanations(explained, source)
        columns["explanation"] = table
        sources["explanation"] = f"Neuronpedia, {source}, by {chosen}"
    frame = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    frame.index = frame.index.astype("int64")
    return Export(source, Labels.of(frame, sources), chosen, others)


def read_folder(folder: Path) -> Export:
    """Read the only export in a downloaded folder; its records name the source."""
    kinds = ("features", "explanations", "explanations-*")
    depths = ("", "*/", "*/*/", "*/*/*/")
    roots = sorted(
        {p.parent for depth in depths for kind in kinds for p in folder.glob(f"{depth}{kind}") if p.is_dir()}
    )
    if len(roots) != 1:
        some = ", ".join(p.relative_to(folder).as_posix() for p in roots[:4])
        what = f"holds several exports: give one of {some}" if roots else "holds no Neuronpedia export"
        raise ExportError(f"{folder} {what}")
    batches = sorted(p for p in roots[0].glob("*/batch-*.jsonl.gz") if p.parent.name != "activations")
    first = next((record for _, record in _lines(batches)), None)
    if first is None:
        raise ExportError(f"{folder} holds no Neuronpedia export: expected batch-0.jsonl.gz with records")
    return read_export(roots[0], f"{first.get('modelId')}/{first.get('layer')}")


def _take_feature(columns: dict[str, dict[int, Any]], record: Mapping[str, Any]) -> None:
    latent = _latent(record)
    density = record.get("frac_nonzero")
    if isinstance(density, int | float) and not isinstance(density, bool):
        if not 0 <= density <= 1:
            raise ExportError(f"latent {latent}: frac_nonzero must be in [0, 1]; got {density!r}")
        _put(columns, "density", latent, float(density))
    for key, name in (("pos_str", "tokens"), ("neg_str", "negative_tokens")):
        texts = record.get(key)
        if isinstance(texts, list) and texts and all(isinstance(t, str) for t in texts):
            _put(columns, name, latent, texts[:64])


def _put(columns: dict[str, dict[int, Any]], name: str, latent: int, value: Any) -> None:
    seen = columns.setdefault(name, {})
    if seen.setdefault(latent, value) != value:
        raise ExportError(f"latent {latent} occurs twice, with different {name}: {seen[latent]!r:.60}, {value!r:.60}")


def _explanations(folders: Sequence[Path], source: str) -> tuple[dict[int, str], str, dict[str, int]]:
    """Return the explanation of each latent by the most frequent explainer, its name, and the counts of the others.

    An explainer is a model together with a method, because the same model explains a latent differently from its
    activations than from its logits.
    """
    written: dict[str, dict[int, str]] = {}
    for folder in folders:
        named = folder.name.removeprefix("explanations").removeprefix("-")
        for record in _records(folder, source):
            text = record.get("description")
            if isinstance(text, str) and text.strip():
                who = str(record.get("explanationModelName") or named or "an unnamed explainer")
                who += f" ({method})" if isinstance(method := record.get("typeName"), str) and method else ""
                written.setdefault(who, {}).setdefault(_latent(record), text.strip())
    if not written:
        raise ExportError(f"the export of {source} contains no explanations")
    counts = {who: len(texts) for who, texts in sorted(written.items())}
    chosen = max(counts, key=lambda who: counts[who])
    return written[chosen], chosen, {who: n for who, n in counts.items() if who != chosen}


def _records(folder: Path, source: str) -> Iterator[Mapping[str, Any]]:
    """Yield the records of all batches in a folder, and check that each record belongs to `source`."""
    batches = {int(m[1]): p for p in folder.iterdir() if (m := _BATCH.fullmatch(p.name))}
    missing = next((i for i in range(len(batches) or 1) if i not in batches), None)
    if missing is not None:
        raise ExportError(f"{folder} lacks batch-{missing}.jsonl.gz; download the export again")
    model, _, layer = source.partition("/")
    for path, record in _lines([path for _, path in sorted(batches.items())]):
        said = (str(record.get("modelId")), str(record.get("layer")))
        if said != (model, layer):
            raise ExportError(f"{path.name} belongs to {shown(said[0], 60)}/{shown(said[1], 60)}, not {source}")
        yield record


def _lines(batches: Sequence[Path]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield (file, record) for each record of all batches; raise ExportError if the decompressed size is excessive."""
    n, most = 0, _ALWAYS + _TIMES * sum(path.stat().st_size for path in batches)
    for path in batches:
        try:
            with gzip.open(path, "rb") as f:
                while line := f.readline(_MOST_LINE):
                    n += len(line)
                    if n > most or (len(line) == _MOST_LINE and not line.endswith(b"\n")):
                        raise ExportError(f"{path} decompresses to more data than an export contains; refused")
                    if line.strip():
                        record = parse_json(line)
                        if not isinstance(record, dict):
                            raise ExportError(f"{path} contains a line that is not a JSON object")
                        yield path, record
        except ExportError:
            raise
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ExportError(f"{path} is truncated or damaged; download it again") from error


def _latent(record: Mapping[str, Any]) -> int:
    index = record.get("index")
    text = str(index) if isinstance(index, str | int) and not isinstance(index, bool) else ""
    latent = int(text) if text.isdecimal() and len(text) < 20 else -1
    if not 0 <= latent < _MOST_ID:
        raise ExportError(f"a record has the index {str(index)[:40]!r}, which is not a latent id")
    return latent
