"""Import optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, needed_for: str) -> ModuleType:
    """Import a package that an optional extra installs.

    Args:
        module: name of the package or of a module in it.
        extra: name of the extra, as in `pip install 'sae-geometry[extra]'`.
        needed_for: feature that needs the package, for the error message.

    Raises:
        ImportError: the package is not installed; the message names the extra.

    Example:
        >>> require("plotly_of_old", "interactive", "the explorer")
        Traceback (most recent call last):
        ImportError: the explorer needs plotly_of_old, which is not installed: pip install 'sae-geometry[interactive]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"{needed_for} needs {package}, which is not installed: pip install 'sae-geometry[{extra}]'"
        ) from error
