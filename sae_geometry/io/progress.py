"""Type of progress callbacks."""

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the name of the current step and its completed share, in [0, 1]."""
