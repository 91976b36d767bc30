"""The page is built of the engine's own choices, and asks for Gradio in words."""

import sys

import pytest

from sparsediff.kernels.errors import SparseError
from sparsediff.search import METHODS
from sparsediff.ui.assets import asset, style
from sparsediff.ui.server import require_gradio


def test_a_missing_gradio_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SparseError, match=r'pip install "sparsediff\[ui\]"'):
        require_gradio()


def test_assets_lead_nowhere_else():
    for name in ("player.html", "player.js"):
        assert "//" not in asset(name).replace("// ", "")
    assert "url(" not in style()
    with pytest.raises(SparseError, match="install sparsediff again"):
        asset("nothing.css")


def test_the_page_offers_every_method_and_nothing_public(comparison, tmp_path):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    from sparsediff.ui.desk import Desk
    from sparsediff.ui.page import page

    config = page(Desk(comparison, tmp_path)).get_config_file()
    parts = {part["props"].get("elem_id"): part["props"] for part in config["components"]}
    assert [value for _, value in parts["method"]["choices"]] == list(METHODS)
    assert parts["prompt"]["value"] == comparison.recipe.prompt
    assert all(found["api_visibility"] == "private" for found in config["dependencies"])
