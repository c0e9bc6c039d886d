"""The docstrings head their doctest with "Example:"; griffe knows the section as "Examples:"."""

from __future__ import annotations

import re
from typing import Any

import griffe


class SingularExample(griffe.Extension):
    """Reads "Example:" as the section that it is, so that its lines are shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^([ \t]*)Example:$", r"\1Examples:", obj.docstring.value)
