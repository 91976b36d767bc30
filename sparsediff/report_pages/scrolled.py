"""What may be wider than a page, in a part of its own that scrolls, also by the keyboard."""

from __future__ import annotations

from html import escape


def scrolled(body: str, *, label: str) -> str:
    """The HTML `body` in a part that can be reached with Tab; `label` is read out there."""
    said = escape(label, quote=True)
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{said}">{body}</div>'
