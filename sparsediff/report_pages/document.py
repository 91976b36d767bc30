"""The frame of every report: one file that needs nothing else, with its figures as JSON inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


def document(
    *,
    title: str,
    subtitle: str,
    parts: Sequence[str],
    data: Mapping[str, Any],
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
) -> str:
    """The page as text: `parts` are HTML, `styles` and `scripts` files of this folder.

    ``page.css`` is always there. No address in the page leads outside of it.
    """
    style = "".join(_read(name) for name in ("page.css", *styles))
    script = "".join(f"<script>{_read(name)}</script>\n" for name in scripts)
    # A "<" in a JSON text could end the script element; its escape means the same to JSON.
    raw = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    readable = json.dumps(data, indent=1, allow_nan=False)
    body = "\n".join(part for part in parts if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)} - sparsediff</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<p class="brand">sparsediff</p>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
</header>
<main>
{body}
<section><details><summary>All figures as JSON</summary>
<pre>{escape(readable)}</pre></details></section>
</main>
<script type="application/json" id="sparsediff">{raw}</script>
{script}</body>
</html>
"""


def _read(name: str) -> str:
    return files("sparsediff.report_pages").joinpath(name).read_text(encoding="utf-8")
