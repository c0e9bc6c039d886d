"""A table of labels by original latent id, with the source of every column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.io.formatting import counted
from sae_geometry.io.parquet_bounds import check_parquet

if TYPE_CHECKING:
    import pandas as pd

_SOURCES = b"sae_geometry_labels"
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of latents, such as tokens, explanations or user columns. Labels never change a similarity.

    Attributes:
        frame: one row per labeled latent; the index `latent_id` holds distinct original ids in ascending order.
        sources: source of each column.
        metric: float64 [d, d], Σ_v u_v u_vᵀ over the unembedding behind `tokens`, not saved; None if unknown.
    """

    frame: pd.DataFrame
    sources: Mapping[str, str]
    metric: np.ndarray | None = None

    @staticmethod
    def of(frame: pd.DataFrame, source: str | Mapping[str, str], metric: np.ndarray | None = None) -> Labels:
        """Build labels from a frame indexed by original latent id.

        Args:
            frame: one row per latent.
            source: the source of all columns, or one per column.
            metric: as in `Labels`.

        Raises:
            ValueError: an id is not an integer of 0 or more, or occurs twice.
        """
        import pandas as pd

        ids = pd.Index(frame.index)
        if not pd.api.types.is_integer_dtype(ids.dtype):
            raise ValueError(f"latent ids must be integers of 0 or more; got {list(ids[:3])!r}")
        if len(ids) and int(ids.min()) < 0:
            raise ValueError(f"latent ids must be integers of 0 or more; got {int(ids.min())}")
        twice = ids[ids.duplicated()]
        if len(twice):
            raise ValueError(
                f"latent {int(twice[0])} has more than one row ({counted(len(twice), 'surplus row')} over all "
                "latents): keep one row per latent"
            )
        sources = {str(c): source if isinstance(source, str) else source[str(c)] for c in frame.columns}
        ordered = frame.copy().sort_index().rename_axis("latent_id")
        ordered.columns = pd.Index([str(c) for c in ordered.columns])
        return Labels(ordered, MappingProxyType(sources), metric)

    def select(self, latent_ids: Sequence[int] | np.ndarray) -> Labels:
        """Return the labels of the given latents in ascending order of id, omitting latents without a label."""
        return replace(self, frame=self.frame.loc[self.frame.index.isin(latent_ids)])

    def joined(self, other: Labels) -> Labels:
        """Return both tables joined by latent; if a column is in both, `other` provides it."""
        mine = self.frame[[c for c in self.frame.columns if c not in other.frame.columns]]
        frame = mine.join(other.frame, how="outer").sort_index().rename_axis("latent_id")
        metric = other.metric if "tokens" in other.frame.columns else self.metric
        return Labels(frame, MappingProxyType({**self.sources, **other.sources}), metric)

    def for_ids(self, latent_ids: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """Return one row per id, in the given order, with nulls for latents without a label."""
        return self.frame.reindex(np.asarray(latent_ids))

    def save(self, path: str | Path) -> Path:
        """Write the table and the source of each column to a Parquet file, which `Labels.read` reads.

        If the file is next to a checkpoint and named like it (`ae.labels.parquet` for `ae.pt`), `load` reads it too.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.frame.reset_index(), preserve_index=False)
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _SOURCES: json.dumps(dict(self.sources))}
        )
        with Path(path).open("wb") as file:  # pyarrow rejects file names that are not UTF-8.
            pq.write_table(table, file, compression="zstd")
        return Path(path)

    @staticmethod
    def read(path: Path) -> Labels:
        """Read a table that `save` wrote.

        Raises:
            ValueError: the file is damaged, or is not a table of labels.
        """
        import pyarrow.parquet as pq

        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"the file has more than {_MOST_BYTES:,} bytes")
            with path.open("rb") as file:
                check_parquet(file)
                table = pq.ParquetFile(file).read()
            sources: Any = json.loads((table.schema.metadata or {}).get(_SOURCES, b"{}"))
            frame = table.to_pandas().set_index("latent_id")
            stated = {str(c): str(sources.get(str(c), path.name)) for c in frame.columns}
        except Exception as error:  # pyarrow and pandas may raise any exception for a damaged or hostile file.
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(f"{path.name} cannot be read as a table of labels ({why})") from error
        return Labels.of(frame, stated)
