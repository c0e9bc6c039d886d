"""How long anything on the network may take, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Attributes:
    connect: seconds to connect.
    silence: seconds without a byte.
    tries: how often a request is made before giving up.
    pause: seconds before the second try, doubled before the third.
    longest_pause: seconds that a server's Retry-After is honoured for.
    slowest: bytes a second that a server has to send, on average over as many seconds as it may be silent.
    end: seconds after which a question, with all the pages of its answer, is given up.
    """

    connect: float = 10.0
    silence: float = 60.0
    tries: int = 3
    pause: float = 1.0
    longest_pause: float = 20.0
    slowest: float = 4096.0
    end: float = 900.0


_current = Limits()


def limits() -> Limits:
    """The limits in force."""
    return _current


def set_limits(new: Limits) -> None:
    """Put other limits in force, for slow lines and for tests."""
    global _current
    _current = new
