"""The page itself: template, style sheet and scripts with the data filled in.

Nothing that a user can name is ever markup: it travels as JSON in which no `<` is left, and the scripts put it on the
page as text. A content security policy holds the browser to that: it runs these two scripts, known by their hashes, and
no others, and may not fetch anything at all.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from importlib.resources import files

from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.packing import pack
from sae_geometry.store import to_json
from sae_geometry.text import shown

SCRIPTS = ("data.js", "colors.js", "picture.js", "lasso.js", "panel.js", "explorer.js")


def page(contents: Contents) -> str:
    """A self-contained HTML page: plotly.js and the packed arrays are in it, compressed.

    Raises:
        ImportError: plotly is not installed.
        ValueError: see `pack`.
    """
    plotly = require_plotly()
    about = contents.about()
    packed = pack(contents.table, contents.names, [region["letter"] for region in about["regions"]])
    about["arrays"] = packed.where
    script = "\n".join(["'use strict';", *(_source(name) for name in SCRIPTS)])
    values = {
        "title": html.escape(_title([shown(name) for name in contents.names])),
        "policy": _policy(script, plotly),
        "style": _source("explorer.css"),
        "about": _json_in_script(about),
        "arrays": _packed(packed.buffer),
        "notice": html.escape(plotly[: plotly.index("*/")].lstrip("/* \n").replace("\n* ", " · ").strip()),
        "plotly": _packed(plotly.encode()),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _source("template.html"))


def require_plotly() -> str:
    """The source of plotly.js, from the plotly package.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "the explorer needs plotly, which is not installed: pip install 'sae-geometry[interactive]'"
        ) from error
    return str(get_plotlyjs())


def _title(names: list[str]) -> str:
    return " · ".join(names) if len(names) <= 4 else f"{names[0]} · {names[1]} · {len(names) - 2} more"


def _source(name: str) -> str:
    return (files("sae_geometry.explorer") / "page" / name).read_text(encoding="utf-8")


def _packed(raw: bytes) -> str:
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode("ascii")


def _json_in_script(value: object) -> str:
    """JSON that is the same wherever in a page it stands: nothing in it opens or closes a tag."""
    text = json.dumps(json.loads(to_json(value)), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
