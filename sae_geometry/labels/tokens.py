"""Tokens that latents write towards: the effect of each decoder direction on the vocabulary, and its significance."""

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
from sae_geometry.io.formatting import counted
from sae_geometry.io.labels import Labels
from sae_geometry.kernels.sweep import sweep
from sae_geometry.labels.model import read_unembedding
from sae_geometry.labels.unembedding import Unembedding
from sae_geometry.nulls.competition import DISCOVERY_RATE, LISTED, Controls, Share, beyond_controls, excess, q_values
from sae_geometry.nulls.turned import principal_axes, turned
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.label_columns import tokens_line
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.sources import as_dictionary
from sae_geometry.sources.layouts.places import canonical_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False, repr=False)
class TokenReading(Answer):
    """The tokens of every latent of one dictionary.

    Attributes:
        dictionary: whose latents.
        unembedding: which tokens, and how their directions were made.
        top: int64 [n, k], rows of the unembedding with the largest logits, by (logit descending, row ascending).
        top_logit: float64 [n, k], ⟨direction, u_v⟩ of those.
        bottom, bottom_logit: the same for the smallest logits, most negative first.
        nearest: float64 [n], the largest cosine to any token's direction.
        turned_nearest: float64 [n], the same for the dictionary turned, which keeps its mean and second moment.
        q_value: float64 [n], the smallest false discovery rate at which a latent is readable.
        beyond: share of latents nearer to a token than the turn explains, 2 · wins − 1, with its interval.
    """

    dictionary: Dictionary
    unembedding: Unembedding
    top: np.ndarray
    top_logit: np.ndarray
    bottom: np.ndarray
    bottom_logit: np.ndarray
    nearest: np.ndarray
    turned_nearest: np.ndarray
    q_value: np.ndarray
    beyond: Share

    @property
    def readable(self) -> np.ndarray:
        """Return bool [n]: nearer to some token than chance, at a false discovery rate of 5 %."""
        return self.q_value <= DISCOVERY_RATE

    @property
    def labels(self) -> Labels:
        """Return the table by original latent id, for `Dictionary.labeled`."""
        source = f"{self.unembedding.name}: {self.unembedding.how}"
        return Labels.of(self.to_pandas().set_index("latent_id"), source, self.unembedding.metric)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent.

        Columns: latent_id, tokens and logits (lists, largest first), negative_tokens and negative_logits (most negative
        first), token_cosine (to the nearest token), turned_token_cosine (the same, turned), readable, readable_q.
        """
        text = np.array(self.unembedding.tokens, dtype=object)
        return pd.DataFrame(
            {
                "latent_id": self.dictionary.latent_ids.numpy(),
                "tokens": list(text[self.top]),
                "logits": list(self.top_logit),
                "negative_tokens": list(text[self.bottom]),
                "negative_logits": list(self.bottom_logit),
                "token_cosine": self.nearest,
                "turned_token_cosine": self.turned_nearest,
                "readable": self.readable,
                "readable_q": self.q_value,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the numbers, JSON-ready."""
        wins = float((self.nearest > self.turned_nearest).mean())
        return {
            "inputs": {"a": describe_input(self.dictionary)},
            "unembedding": self.unembedding.name,
            "how": self.unembedding.how,
            "n_latents": self.dictionary.n_latents,
            "n_tokens": len(self.unembedding.tokens),
            "readable_fraction": float(self.readable.mean()),
            "nearer_than_turned_fraction": wins,
            "beyond_chance_fraction": self.beyond.value,
            "beyond_chance_interval": [self.beyond.low, self.beyond.high],
            "caveats": list(self.caveats),
        }

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return warnings to show with the result."""
        if self.dictionary.hook_point is not None:
            return ()
        return (f"hook point of {self.dictionary.name} unknown: taken to be the residual stream",)

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Return the dictionary."""
        return (self.dictionary,)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the table that `save` writes as `tokens.parquet`, each list as JSON text."""
        table = self.to_pandas()
        for column in ("tokens", "logits", "negative_tokens", "negative_logits"):
            table[column] = [json.dumps(list(values), ensure_ascii=False) for values in table[column]]
        return {"tokens": table}

    def figures(self) -> dict[str, Figure]:
        """Return the figure that `save` draws."""
        from sae_geometry import plots

        return {"tokens": plots.tokens_figure(self)}

    @property
    def method(self) -> str:
        """Describe in sentences what was computed and how."""
        u, name = self.unembedding, self.dictionary.name
        return (
            f"We took the logits that the unit decoder directions of {name} raise and lower most, of "
            f"{counted(len(u.tokens), 'token')} of {u.name} ({u.how}), and the token direction with the largest cosine "
            f"to each. A latent is readable if that cosine beats the one of {name} {methods.TURNED}, at a false "
            f"discovery rate of 5 % (target-decoy competition with the knockoff+ threshold). {methods.EXACT}"
        )

    def __repr__(self) -> str:
        head = (
            f"Tokens of {self.dictionary.name!r} by {self.unembedding.name}\n"
            f"  {self.unembedding.how}\n"
            f"  readable (FDR 5 %)  {self.readable.mean():.1%} of {self.dictionary.n_latents:,} latents; beyond chance "
            f"{self.beyond.value:.1%} [{self.beyond.low:.1%}, {self.beyond.high:.1%}]\n"
        )
        rows = np.argsort(-np.where(self.readable, self.nearest, -np.inf), kind="stable")[:8]
        ids = self.dictionary.latent_ids.numpy()
        words = [tokens_line([self.unembedding.tokens[t] for t in self.top[i]]) for i in rows]
        lines = [f"  {ids[i]:>7}  {self.nearest[i]:.2f}  {said}" for i, said in zip(rows, words, strict=True)]
        return head + "\n".join(lines)


def read_tokens(
    a: Any,
    unembed: Unembedding | torch.Tensor | np.ndarray | str | Path,
    *,
    k: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> TokenReading:
    """Read the tokens that each latent's decoder direction writes towards.

    Args:
        a: anything `compare` takes: n directions of width d in the residual stream.
        unembed: the model's address (see `read_unembedding`), an `Unembedding` of V tokens of width d, or an array
            [V, d], whose tokens are then named by their rows.
        k: tokens listed per latent and sign, 1…64.
        seed: of the turn.
        progress: called with a stage and the share of it done, in [0, 1].

    Raises:
        ValueError: different widths, fewer tokens than k, a hook point outside the residual stream, or no model there.

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
    if isinstance(unembed, torch.Tensor | np.ndarray):
        unembed = Unembedding.from_weights(torch.as_tensor(unembed))
    unembedding = unembed if isinstance(unembed, Unembedding) else read_unembedding(unembed)
    x, u = dictionary.directions.cpu(), unembedding.rows
    _check(dictionary, unembedding, k)

    def stage(name: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda share: progress(name, share)

    top = sweep(x, u, k, columns=False, progress=stage("top tokens")).rows
    bottom = sweep(-x, u, k, columns=False, progress=stage("bottom tokens")).rows
    units = torch.nn.functional.normalize(u, dim=1)
    listed = min(LISTED, len(units))
    target = sweep(x, units, listed, columns=False, progress=stage("nearest tokens")).rows.score.numpy()
    other = turned(x, principal_axes(x), seed)
    decoys = sweep(other, units, listed, columns=False, progress=stage("chance")).rows.score.numpy()
    n = len(x)
    nothing = np.full(n, -np.inf)
    controls = Controls(
        target, nothing, decoys[:, 0], decoys, 1.0, (float(decoys[:, 0].mean()),), np.zeros(n, np.int64)
    )
    w = excess(target[:, 0], controls)
    return TokenReading(
        dictionary,
        unembedding,
        top.index.numpy(),
        top.score.numpy(),
        bottom.index.numpy(),
        -bottom.score.numpy(),
        np.clip(target[:, 0], -1.0, 1.0),
        np.clip(decoys[:, 0], -1.0, 1.0),
        q_values(w, 1.0),
        beyond_controls(w),
    )


def _check(dictionary: Dictionary, unembedding: Unembedding, k: int) -> None:
    place = None if dictionary.hook_point is None else canonical_place(dictionary.hook_point, dictionary.model)
    if place is not None and "resid" not in place:
        raise ValueError(
            f"{dictionary.name!r} is at {dictionary.hook_point}: only directions of the residual stream add to the "
            "logits; give a dictionary of the residual stream"
        )
    if dictionary.d_in != unembedding.rows.shape[1]:
        raise ValueError(
            f"{dictionary.name!r} has width {dictionary.d_in:,} and the unembedding of {unembedding.name} has "
            f"{unembedding.rows.shape[1]:,}: give the model that the dictionary was trained on"
        )
    if not 1 <= k <= min(64, len(unembedding.tokens)):
        raise ValueError(f"k must be in 1…{min(64, len(unembedding.tokens))}; got {k}")
