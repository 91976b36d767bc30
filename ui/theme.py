"""The look of Gradio's own parts: the colours of our reports, system fonts, nothing downloaded."""

from __future__ import annotations

from typing import Any

_ACCENT = {
    50: "#eef5fb", 100: "#d9e8f5", 200: "#b5d2ec", 300: "#8dbae0", 400: "#6aa9e3", 500: "#3f83c0",
    600: "#2f6fab", 700: "#285d90", 800: "#234d76", 900: "#1e4062", 950: "#142a41",
}  # fmt: skip
_NEUTRAL = {
    50: "#fbfaf7", 100: "#f3f1ec", 200: "#e3e0d8", 300: "#c9c6bd", 400: "#98a1ac", 500: "#646b75",
    600: "#4a515b", 700: "#2e343c", 800: "#1c2026", 900: "#15181c", 950: "#0c0e11",
}  # fmt: skip


def theme() -> Any:
    """The theme, a `gradio.themes.Base`."""
    import gradio as gr

    accent = gr.themes.Color(**_hue("accent", _ACCENT))
    neutral = gr.themes.Color(**_hue("neutral", _NEUTRAL))
    base = gr.themes.Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue=neutral,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )
    return base.set(
        body_background_fill="#fbfaf7",
        body_background_fill_dark="#15181c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1c2026",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_text_color="#5c636d",
        block_label_text_color_dark="#9aa3ae",
        block_title_text_weight="500",
        block_info_text_color="#5c636d",
        block_info_text_color_dark="#9aa3ae",
        body_text_color_subdued="#5c636d",
        body_text_color_subdued_dark="#9aa3ae",
        input_background_fill="#ffffff",
        input_background_fill_dark="#15181c",
        input_border_width="1px",
        input_placeholder_color="#6b727c",
        input_placeholder_color_dark="#9aa3ae",
        button_primary_background_fill="#2f6fab",
        button_primary_background_fill_hover="#285d90",
        button_primary_background_fill_dark="#2f6fab",
        button_primary_background_fill_hover_dark="#3f83c0",
        button_primary_text_color="#ffffff",
        checkbox_label_background_fill_selected="#2f6fab",
        checkbox_label_background_fill_selected_dark="#2f6fab",
        checkbox_label_text_color_selected="#ffffff",
        checkbox_label_text_color_selected_dark="#ffffff",
        slider_color="#2f6fab",
        slider_color_dark="#6aa9e3",
    )


def _hue(name: str, shades: dict[int, str]) -> dict[str, str]:
    return {"name": name, **{f"c{number}": colour for number, colour in shades.items()}}
