"""The server of the page: on this machine only, sharing nothing, asking nobody."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.ui.assets import style
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.desk import Desk
from sparsediff.ui.gallery import Gallery
from sparsediff.ui.page import page
from sparsediff.ui.theme import theme

_LARGEST_UPLOAD = 1024  # bytes: nothing is uploaded as a file, plans come as text


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Server:
    """A page that is being served at ``address``."""

    address: str
    desk: Desk
    blocks: Any

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self.blocks.block_thread()

    def close(self) -> None:
        """Stop serving; returns when the port is free again."""
        self.blocks.close()


def require_gradio() -> None:
    """Raise SparseError, with the command that installs it, when Gradio is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    # Else Gradio has a page of its own that notes runs, and asks the Hub for whoever sends a token.
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise SparseError(
            'The app needs Gradio, which is not installed: pip install "sparsediff[ui]"'
        ) from error


def serve(
    comparison: Comparison,
    *,
    host: str = "127.0.0.1",
    port: int | None = 7860,
    gallery: Gallery | None = None,
) -> Server:
    """Open the page; the model loads meanwhile. `port` None takes a free one.

    Runs are kept in `gallery`, and everybody who can open the page sees them there; None keeps nothing.
    Raises SparseError when Gradio is missing or the port is taken.
    """
    require_gradio()
    folder = tempfile.TemporaryDirectory(prefix="sparsediff-ui-")
    desk = Desk(comparison, Path(folder.name), gallery)
    blocks = page(desk)
    blocks.own_folder = folder  # goes with the page
    blocks.queue(max_size=64, default_concurrency_limit=16, api_open=False)  # nobody skips it
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            ssr_mode=False,
            show_error=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=_LARGEST_UPLOAD,
            allowed_paths=[],
            theme=theme(),
            head=f"<style>{style()}</style>",
        )
    except OSError as error:
        raise SparseError(
            f"Port {port} of {host} cannot be used: {error} Choose another."
        ) from error
    threading.Thread(target=desk.load, daemon=True).start()
    return Server(address=address, desk=desk, blocks=blocks)
