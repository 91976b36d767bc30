"""The screen of a result: a player of two videos on one time line, or of two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.ui.assets import asset
from sparsediff.ui.clips import Clips

_SIDES = ("width", "height")


def screen(call: Mapping[str, Any]) -> Any:
    """The player, empty. What a `call` of the pipeline makes is told to it, so that nothing jumps."""
    import gradio as gr

    size = {side: call[side] for side in _SIDES} if all(side in call for side in _SIDES) else {}
    if call:  # else nobody knows yet whether it makes pictures
        size["frames"] = call.get("num_frames", 1)
    return gr.HTML(
        value=size or None,
        html_template=asset("player.html"),
        js_on_load=asset("player.js"),
        elem_id="player",
        apply_default_css=False,
    )


def on_screen(player: Any, clips: Clips, *, address: str) -> dict[str, Any]:
    """What shows `clips`, by "screen" (the `player`); `address` becomes the page's.

    Raises OSError when they cannot be copied to where Gradio serves them from.
    """
    return {
        "screen": {
            "dense": player.serve_static_file(str(clips.dense))["url"],
            "sparse": player.serve_static_file(str(clips.sparse))["url"],
            "frames": clips.frames,
            "fps": clips.fps,
            "width": clips.width,
            "height": clips.height,
            "address": f"?{address}",
        }
    }
