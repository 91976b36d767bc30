"""The chart of speed against fidelity as files to keep: a picture, and figures to repeat it from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sparsediff.media import data_uri
from sparsediff.ui.run_document import tradeoff_document
from sparsediff.ui.tradeoff import Point
from sparsediff.ui.tradeoff_picture import picture

_NAME = "speed-and-fidelity"


def downloads(points: Sequence[Point]) -> str:
    """Links to both files, whose content is in the page: nothing lies on the server for them."""
    if not all(point.run for point in points):
        return ""
    figures = json.dumps(tradeoff_document(point.run for point in points), indent=1)
    links = (
        (".png", picture(points), "Download the chart (PNG)"),
        (".json", figures.encode(), "Download figures and settings (JSON)"),
    )
    items = "".join(
        f'<a download="{_NAME}{suffix}" href="{data_uri(content, suffix)}">{text}</a>'
        for suffix, content, text in links
    )
    return f'<p class="sd-files">{items}</p>'
