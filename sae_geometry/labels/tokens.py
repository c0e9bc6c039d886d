"""Tokens that latents promote: the effect of each decoder direction on the vocabulary, and its significance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, percent
from sae_geometry.io.labels import Labels
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import sweep
from sae_geometry.labels.unembedding import Unembedding, read_unembedding
from sae_geometry.nulls.competition import DISCOVERY_RATE, Share, q_values, share_of
from sae_geometry.nulls.turned import principal_axes, turned
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.label_columns import tokens_line
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.sources import as_dictionary
from sae_geometry.sources.layouts.places import canonical_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN, _LISTED = 8, 10  # number of latents printed, and of tokens listed per latent
_COLUMNS = ("latent_id", "tokens", "logits", "negative_tokens", "negative_logits", "token_cosine",
            "turned_token_cosine", "readable", "readable_q")  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class TokenReading(Answer):
    """Tokens that the latents of one dictionary promote, with a test of which latents are readable.

    Attributes:
        dictionary: the dictionary that the latents belong to.
        labels: tokens by original latent id, and the source of each column; `Dictionary.labeled` accepts these labels.
    """

    dictionary: Dictionary
    labels: Labels

    @property
    def readable(self) -> np.ndarray:
        """Whether each latent is closer to a token than expected by chance (FDR 5%), bool [n]; empty if unknown."""
        return self._column("readable").astype(bool)

    @property
    def nearest(self) -> np.ndarray:
        """The largest cosine of each latent to any token's direction, float64 [n]; empty if unknown."""
        return self._column("token_cosine").astype(np.float64)

    @property
    def turned_nearest(self) -> np.ndarray:
        """The largest cosine of each turned latent to any token's direction, float64 [n]; empty if unknown."""
        return self._column("turned_token_cosine").astype(np.float64)

    @property
    def beyond(self) -> Share:
        """The share of latents that are readable beyond chance, 2 · wins − 1, with its interval."""
        wins = share_of(float((self.nearest > self.turned_nearest).sum()), len(self.nearest))
        if not wins.n:
            return wins
        value, low, high = (max(0.0, 2 * x - 1) for x in (wins.value, wins.low, wins.high))
        return Share(value, low, high, wins.n)

    def _column(self, name: str) -> np.ndarray:
        frame = self.labels.frame
        return frame[name].dropna().to_numpy() if name in frame else np.empty(0)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per latent that has tokens.

        Columns, if known: latent_id, tokens and logits (lists, largest first), negative_tokens and negative_logits
        (most negative first), token_cosine (to the nearest token), turned_token_cosine (the same for the turned
        dictionary), readable, readable_q.
        """
        frame = self.labels.frame.reset_index()
        return frame[[c for c in _COLUMNS if c in frame]]

    def summary(self) -> dict[str, Any]:
        """Return the counts of latents, the readable shares, the source and the caveats as a JSON-ready dict."""
        wins = float((self.nearest > self.turned_nearest).mean()) if len(self.nearest) else None
        return {
            "inputs": {"a": describe_input(self.dictionary)},
            "source": self.labels.sources["tokens"],
            "n_latents": self.dictionary.n_latents,
            "n_with_tokens": len(self.labels.frame),
            "readable_fraction": float(self.readable.mean()) if len(self.readable) else None,
            "nearer_than_turned_fraction": wins,
            "beyond_chance_fraction": self.beyond.value,
            "beyond_chance_interval": [self.beyond.low, self.beyond.high],
            "caveats": list(self.caveats),
        }

    @property
    def caveats(self) -> tuple[str, ...]:
        """A warning if the hook point of the dictionary is unknown."""
        if self.dictionary.hook_point is not None:
            return ()
        return (f"the hook point of {self.dictionary.name} is unknown: assumed to be the residual stream",)

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """The dictionary, as a tuple of length one."""
        return (self.dictionary,)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the table that `save` writes as `tokens.parquet`, by name, with lists as JSON text."""
        table = self.to_pandas()
        for column in set(table.columns) & {"tokens", "logits", "negative_tokens", "negative_logits"}:
            table[column] = table[column].map(
                lambda values: json.dumps(np.asarray(values).tolist(), ensure_ascii=False), "ignore"
            )
        return {"tokens": table}

    def lists(self) -> dict[str, pd.DataFrame]:
        """Return a table for human readers: readable latents first, and each list of tokens joined in one line."""
        table = self._sorted().reset_index()
        table = table[[c for c in _COLUMNS if c in table and not c.endswith("logits")]]
        for column in set(table.columns) & {"tokens", "negative_tokens"}:
            table[column] = [tokens_line(_texts(row), _LISTED) for row in table[column]]
        return {"tokens": table}

    def figures(self) -> dict[str, Figure]:
        """Return the figure that `save` writes, by name; an empty dict if the cosines to tokens are unknown."""
        from sae_geometry import plots

        return (
            {"tokens": plots.figure_of(lambda ax: plots.tokens_ecdf(self, ax), 3.25, 2.8)} if len(self.nearest) else {}
        )

    @property
    def method(self) -> str:
        """A description of the computation for a paper's methods section."""
        name, source = self.dictionary.name, self.labels.sources["tokens"]
        said = f"We list the tokens whose logits the unit decoder directions of {name} change most, by {source}."
        if not len(self.readable):
            return said
        return (
            f"{said} A latent is readable if its largest cosine to a token's direction exceeds the same cosine with "
            f"{name} {methods.TURNED}, at a false discovery rate of 5% (target-decoy competition by the "
            f"difference of both cosines, with the knockoff+ threshold). {methods.EXACT}"
        )

    @property
    def sentences(self) -> str:
        """The result in two sentences, or in one sentence if the cosines to tokens are unknown."""
        d = self.dictionary
        said = f"These are the tokens that {counted(d.n_latents, 'latent')} of {d.name} promote."
        if not len(self.readable):
            return said
        share = percent(self.readable.mean())
        return f"{said} {share} are closer to a token than expected by chance (5% false discoveries)."

    def _lines(self) -> list[str]:
        n, frame = self.dictionary.n_latents, self._sorted()
        lines = [f"Tokens of {shown(self.dictionary.name, 60)!r} by {shown(self.labels.sources['tokens'])}"]
        if len(self.readable):
            lines.append(
                f"  readable (FDR 5%)  {self.readable.mean():.1%} of {counted(len(self.readable), 'latent')}; "
                f"beyond chance {self.beyond.value:.1%} [{self.beyond.low:.1%}, {self.beyond.high:.1%}]"
            )
        if len(frame) < n:
            lines.append(f"  without tokens: {n - len(frame):,} of {counted(n, 'latent')}")
        for latent, row in frame.head(_SHOWN).iterrows():
            near = f"{row['token_cosine']:.2f}  " if "token_cosine" in frame else ""
            most, least = (tokens_line(_texts(row.get(c)), 3) for c in ("tokens", "negative_tokens"))
            lines.append(f"  {latent:>7}  {near}{most}{f'   − {least}' if least else ''}")
        return lines

    def _sorted(self) -> pd.DataFrame:
        frame = self.labels.frame
        if not len(self.readable):
            return frame
        return frame.sort_values(["readable", "token_cosine"], ascending=False, kind="stable")


def _texts(tokens: object) -> list[str]:
    return [str(t) for t in tokens] if isinstance(tokens, list | tuple | np.ndarray) else []


def read_tokens(
    a: Any,
    unembed: Unembedding | torch.Tensor | np.ndarray | str | Path | None = None,
    *,
    k: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> TokenReading:
    """Read the tokens that each latent's decoder direction promotes.

    Args:
        a: any input of `compare`, with n directions of width d in the residual stream.
        unembed: the model's address (see `read_unembedding`), an `Unembedding` of V tokens of width d, or an array
            [V, d], whose row numbers name the tokens. If None, use the tokens in the dictionary's labels.
        k: number of tokens listed per latent and sign, 1…64, by (logit descending, row ascending).
        seed: random seed of the turned control.
        progress: called with the name of a stage and its finished share in [0, 1].

    Raises:
        ValueError: the widths differ, there are fewer than k tokens, the hook point is not in the residual stream, the
            address has no model, or `unembed` is None and the dictionary's labels have no tokens.

    Example:
        >>> import torch
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.labels.unembedding import Unembedding
        >>> d = Dictionary.from_decoder(torch.eye(3, 8), latent_axis=0)
        >>> u = Unembedding.from_weights(torch.eye(8), list("abcdefgh"))
        >>> read_tokens(d, u, k=1).to_pandas().tokens.str[0].tolist()
        ['a', 'b', 'c']
    """
    dictionary = as_dictionary(a)
    if unembed is None:
        return _own_tokens(dictionary, k)
    if isinstance(unembed, torch.Tensor | np.ndarray):
        unembed = Unembedding.from_weights(torch.as_tensor(unembed))
    unembedding = unembed if isinstance(unembed, Unembedding) else read_unembedding(unembed)
    require_readable(dictionary, unembedding, k)
    x, u = dictionary.directions.cpu(), unembedding.rows

    def stage(name: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda share: progress(name, share)

    top = sweep(x, u, k, columns=False, progress=stage("top tokens")).rows
    bottom = sweep(-x, u, k, columns=False, progress=stage("bottom tokens")).rows
    units = torch.nn.functional.normalize(u, dim=1)
    near = sweep(x, units, columns=False, progress=stage("nearest tokens")).rows.score.numpy()[:, 0]
    other = turned(x, principal_axes(x), seed)
    chance = sweep(other, units, columns=False, progress=stage("chance")).rows.score.numpy()[:, 0]
    # Partners are tested by their excess over the next candidates, which would hide the clearest latents here: a latent
    # that writes " of" is almost as close to "of", " Of" and "OF".
    q = q_values(near - chance, 1.0)
    text = np.array(unembedding.tokens, dtype=object)
    frame = pd.DataFrame(
        {
            "tokens": list(text[top.index.numpy()]),
            "logits": list(top.score.numpy()),
            "negative_tokens": list(text[bottom.index.numpy()]),
            "negative_logits": list(-bottom.score.numpy()),
            "token_cosine": near.clip(-1.0, 1.0),
            "turned_token_cosine": chance.clip(-1.0, 1.0),
            "readable": q <= DISCOVERY_RATE,
            "readable_q": q,
        },
        index=dictionary.latent_ids.numpy(),
    )
    return TokenReading(dictionary, Labels.of(frame, _source(unembedding), unembedding.metric))


def top_tokens(dictionary: Dictionary, unembedding: Unembedding) -> Labels:
    """Return the top tokens of a few latents without the test of readability, which needs the whole dictionary."""
    k = min(_LISTED, len(unembedding.tokens))
    require_readable(dictionary, unembedding, k)
    top = sweep(dictionary.directions.cpu(), unembedding.rows, k, columns=False).rows.index.numpy()
    rows = list(np.array(unembedding.tokens, dtype=object)[top])
    return Labels.of(pd.DataFrame({"tokens": rows}, index=dictionary.latent_ids.numpy()), _source(unembedding))


def _source(unembedding: Unembedding) -> str:
    return f"{unembedding.name}: {unembedding.how}"


def _own_tokens(dictionary: Dictionary, k: int) -> TokenReading:
    """Return the tokens in a dictionary's labels, at most `k` per latent and sign."""
    labels = dictionary.labels
    if labels is None or "tokens" not in labels.frame or labels.frame["tokens"].isna().all():
        raise ValueError(
            f"{dictionary.name!r} has no tokens: give the model that it was trained on, as "
            "unembed='hf://org/model' (--unembed hf://org/model), or the model's folder"
        )
    frame = labels.frame.dropna(subset="tokens").copy()
    for column in set(frame.columns) & {"tokens", "logits", "negative_tokens", "negative_logits"}:
        frame[column] = frame[column].map(lambda v: v[:k] if isinstance(v, list | np.ndarray) else [v], "ignore")
    return TokenReading(dictionary, Labels(frame, labels.sources, labels.metric))


def require_readable(dictionary: Dictionary, unembedding: Unembedding, k: int = 1) -> None:
    """Raise ValueError if a dictionary's width or hook point does not fit the unembedding, or `k` is out of range."""
    place = None if dictionary.hook_point is None else canonical_place(dictionary.hook_point, dictionary.model)
    if place is not None and "resid" not in place:
        raise ValueError(
            f"{dictionary.name!r} is at {dictionary.hook_point}: only directions of the residual stream add to the "
            "logits; give a dictionary of the residual stream"
        )
    if dictionary.d_in != unembedding.rows.shape[1]:
        raise ValueError(
            f"{dictionary.name!r} has width {dictionary.d_in:,} but the unembedding of {unembedding.name} has "
            f"width {unembedding.rows.shape[1]:,}: give the model that the dictionary was trained on"
        )
    if not 1 <= k <= min(64, len(unembedding.tokens)):
        raise ValueError(f"k must be in 1…{min(64, len(unembedding.tokens))}; got {k}")
