"""Let griffe read the docstring section "Example:", which it knows as "Examples:"."""

from __future__ import annotations

import re
from typing import Any

import griffe


class SingularExample(griffe.Extension):
    """Rename the section "Example:" to "Examples:", so that its lines are shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^([ \t]*)Example:$", r"\1Examples:", obj.docstring.value)
