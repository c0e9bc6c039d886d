"""Names, defaults and limits that several comparisons share."""

from __future__ import annotations

from typing import Literal

OneToOne = Literal["mutual", "greedy", "optimal"]
MatchingName = Literal["nearest", OneToOne]
On = Literal["decoder", "encoder", "both"]

THRESHOLD = 0.7  # A latent is shared if its similarity is above this threshold, as in Paulo & Belrose (2025).
DISCOVERY_RATE = 0.05  # maximum expected share of false discoveries among significant latents
SMALL = 4096  # Up to this many latents per side, an optimal matching takes seconds.
MOST_RUNS = 24  # maximum number of runs for which an embedding compares every pair


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless the threshold is a possible cosine."""
    if not -1 <= threshold <= 1:
        raise ValueError(f"the threshold is a cosine and must be in −1…1; got {threshold:g}")


def listed(usual: int, *n_latents: int) -> int:
    """Return the number of partners listed per latent before matching: `usual`, or 64 if no side exceeds 4,096 latents.

    For so few latents, longer lists cost less than sweeping again whenever a list is exhausted.
    """
    return 64 if max(n_latents) <= SMALL else usual


def default_matching(*n_latents: int) -> OneToOne:
    """Return "optimal" if no side has more than 4,096 latents, else "greedy".

    Example:
        >>> default_matching(4096, 512), default_matching(4097, 512)
        ('optimal', 'greedy')
    """
    return "optimal" if max(n_latents) <= SMALL else "greedy"
