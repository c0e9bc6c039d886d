"""Names, defaults and limits that several questions share."""

from __future__ import annotations

from typing import Literal

OneToOne = Literal["mutual", "greedy", "optimal"]
MatchingName = Literal["nearest", OneToOne]
On = Literal["decoder", "encoder", "both"]

THRESHOLD = 0.7  # a similarity above which a latent counts as found again, as in Paulo & Belrose (2025)
DISCOVERY_RATE = 0.05  # of false discoveries among the latents that are called significant
SMALL = 4096  # latents per side up to which an optimal matching is a matter of seconds
MOST_RUNS = 24  # runs up to which an embedding compares every two; more are a comparison of their own


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless the threshold is a possible cosine."""
    if not -1 <= threshold <= 1:
        raise ValueError(f"the threshold is a cosine, within −1…1; got {threshold:g}")


def listed(usual: int, *n_latents: int) -> int:
    """Return how many partners to list per latent before matching: `usual`, or 64 where no side exceeds 4,096 latents.

    There, longer lists cost less than sweeping again whenever a list is exhausted.
    """
    return 64 if max(n_latents) <= SMALL else usual


def default_matching(*n_latents: int) -> OneToOne:
    """Return "optimal" where no side has more than 4,096 latents, "greedy" beyond.

    Example:
        >>> default_matching(4096, 512), default_matching(4097, 512)
        ('optimal', 'greedy')
    """
    return "optimal" if max(n_latents) <= SMALL else "greedy"
