"""Labels of a dictionary's latents: a table by original latent id, every column with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import pandas as pd


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of what latents mean. A label never changes a number.

    Attributes:
        frame: one row per labeled latent; the index `latent_id` holds original ids, ascending, each once.
        sources: where each column comes from.
    """

    frame: pd.DataFrame
    sources: Mapping[str, str]

    @staticmethod
    def of(frame: pd.DataFrame, source: str | Mapping[str, str]) -> Labels:
        """Build labels from a frame indexed by original latent id.

        Args:
            frame: one row per latent.
            source: of every column, or one for each.

        Raises:
            ValueError: ids that are not whole numbers from 0 on, or that repeat.
        """
        ids = pd.Index(frame.index)
        if not pd.api.types.is_integer_dtype(ids.dtype) or (len(ids) and int(ids.min()) < 0):
            raise ValueError(f"latent ids are whole numbers from 0 on; got {list(ids[:3])!r}")
        twice = ids[ids.duplicated()]
        if len(twice):
            raise ValueError(f"{len(twice):,} latent ids occur more than once, first {int(twice[0])}")
        sources = {str(c): source if isinstance(source, str) else source[str(c)] for c in frame.columns}
        ordered = frame.copy().sort_index().rename_axis("latent_id")
        ordered.columns = [str(c) for c in ordered.columns]
        return Labels(ordered, MappingProxyType(sources))

    def select(self, latent_ids: Sequence[int]) -> Labels:
        """Return the labels of these latents, in ascending order; ids without a label are left out."""
        return replace(self, frame=self.frame.loc[self.frame.index.isin(list(latent_ids))])

    def joined(self, other: Labels) -> Labels:
        """Return both tables as one; of columns with one name, those of `other`."""
        mine = self.frame[[c for c in self.frame.columns if c not in other.frame.columns]]
        frame = mine.join(other.frame, how="outer")
        return Labels(frame.sort_index().rename_axis("latent_id"), MappingProxyType({**self.sources, **other.sources}))

    def for_ids(self, latent_ids: Sequence[int]) -> pd.DataFrame:
        """Return one row for each of these ids, in their order; nulls where a latent has no label."""
        return self.frame.reindex(list(latent_ids))
