"""Counts of alive latents, and checks of firing frequencies and of lists of alive latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_geometry.io.formatting import counted
from sae_geometry.io.weights import MAX_NAMED, checked_vector, plain_tensor, some_ids


@dataclass(frozen=True)
class Alive:
    """Numbers of alive and dead latents of a dictionary, with the source of that information.

    Attributes:
        source: description of the source; "unknown" if there is none.
        n_total: number of latents in the file, before any were dropped.
        n_dead: number of latents known never to fire; None if unknown.
        n_dropped_dead: number of dead latents removed from this dictionary.
        n_tokens: number of tokens over which firing was counted; None if not recorded.
        bad_ids: original ids dropped because their decoder row was zero or not finite (`drop_bad=True`).
    """

    source: str
    n_total: int
    n_dead: int | None = None
    n_dropped_dead: int = 0
    n_tokens: int | None = None
    bad_ids: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return the counts as text: "1,491 of 1,536 alive (frequency > 0 over 102,400 tokens); 45 dead dropped"."""
        if self.n_dead is None:
            which = "whether the latent is" if self.n_total == 1 else f"which of the {self.n_total:,} latents are"
            text = f"{which} alive is unknown; none dropped"
        else:
            over = f" over {counted(self.n_tokens, 'token')}" if self.n_tokens else ""
            fate = f"{self.n_dropped_dead:,} dead dropped" if self.n_dropped_dead else "none dropped"
            text = f"{self.n_total - self.n_dead:,} of {self.n_total:,} alive ({self.source}{over}); {fate}"
        if self.bad_ids:
            text += f"; {counted(len(self.bad_ids), 'bad row')} dropped"
        return text


def shares(frequency: Any, n: int) -> Tensor:
    """Return firing frequencies as float64 [n].

    Raises:
        ValueError: the frequencies are not one number in [0, 1] per latent.
    """
    t = checked_vector(frequency, n, "frequency", "latents").to(torch.float64)
    outside = (~((t >= 0) & (t <= 1))).nonzero().flatten().tolist()  # NaN counts as outside.
    if outside:
        raise ValueError(
            f"frequency must be the share of tokens on which each latent fires, 0…1; latents {some_ids(outside)} have "
            f"{', '.join(f'{float(t[i]):.8g}' for i in outside[:MAX_NAMED])}: divide counts by the number of tokens"
        )
    return t


def alive_mask_of(alive: Any, n: int) -> Tensor:
    """Return a mask, bool [n], from a mask or from the ids of the alive latents.

    Raises:
        ValueError: the mask has another length, an id is out of range or repeated, or the values are not bools or ids.
    """
    t = plain_tensor(alive, "list of alive latents").cpu()
    if t.dtype == torch.bool:
        return checked_vector(t, n, "alive", "latents")
    ids = t.flatten()
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.unique().numel() < ids.numel()):
        raise ValueError(
            f"alive must be a bool mask of length {n:,} or a list of distinct latent ids; got {t.dtype} values "
            f"beginning with {ids[:4].tolist()}: for a mask of 0 and 1, pass alive > 0"
        )
    ids = ids.to(torch.int64)
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= n):
        raise ValueError(
            f"ids of alive latents must be in 0…{n - 1:,}; got {int(ids.min()):,}…{int(ids.max()):,}: "
            "is this list from another run?"
        )
    mask = torch.zeros(n, dtype=torch.bool)
    mask[ids] = True
    return mask
