"""For every test: "auto" keeps its fixed order, so that no result depends on a timing."""

from __future__ import annotations

import os

os.environ["SPARSEDIFF_RANKING"] = "off"
