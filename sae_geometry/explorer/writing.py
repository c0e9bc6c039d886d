"""Assembly of the page from its template, style sheet, scripts and data.

User-supplied names are never markup: they are passed as JSON without `<`, and the scripts insert them as text. A
content security policy enforces this: the browser runs only the page's two scripts, identified by their hashes, and may
not fetch anything.
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
from sae_geometry.io.escaping import shown
from sae_geometry.io.extras import require
from sae_geometry.results.store import to_json

SCRIPTS = (
    "data.js", "colors.js", "picture.js", "lasso.js", "words.js", "panel.js", "pairs.js", "address.js", "controls.js",
    "explorer.js",
)  # fmt: skip


def page(contents: Contents) -> str:
    """Return a self-contained HTML page that embeds plotly.js and the packed arrays, compressed."""
    plotly = require_plotly()
    about = contents.about()
    letters = [region["letter"] for region in about["regions"]]
    packed = pack(contents.table, contents.names, letters, in_chains=about["flow"])
    about["arrays"] = packed.where
    script = "\n".join(["'use strict';", *(_source(name) for name in SCRIPTS)])
    names = [shown(name) for name in contents.names]
    names = names if len(names) <= 4 else [*names[:2], f"{len(names) - 2} more"]
    values = {
        "title": html.escape(" · ".join(names)),
        "picture": "Layers" if about["flow"] else "UMAP",
        "policy": _policy(script, plotly),
        "style": _source("explorer.css"),
        "about": _json_in_script(about),
        "arrays": _packed(packed.buffer),
        "texts": _packed(json.dumps(packed.texts, ensure_ascii=False).encode("utf-8", "replace")),
        "notice": html.escape(plotly[: plotly.index("*/")].lstrip("/* \n").replace("\n* ", " · ").strip()),
        "plotly": _packed(plotly.encode()),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _source("template.html"))


def require_plotly() -> str:
    """Return the source of plotly.js from the plotly package."""
    return str(require("plotly.offline", "interactive", "the explorer").get_plotlyjs())


def _source(name: str) -> str:
    return (files("sae_geometry.explorer") / "page" / name).read_text(encoding="utf-8")


def _packed(raw: bytes) -> str:
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode("ascii")


def _json_in_script(value: object) -> str:
    """Return JSON that is safe inside a script element, since nothing in it opens or closes a tag."""
    text = json.dumps(json.loads(to_json(value)), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
