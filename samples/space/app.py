"""A Hugging Face Space: the comparison app on one model, for everybody who comes by.

MODEL names a diffusers folder or Hub id; without it the small sample model is compared, which needs no
GPU: copy the folder samples/models/shapes-wan beside this file.
"""

import os
from pathlib import Path

from sparsediff.ui.comparison import Comparison
from sparsediff.ui.sample_model import sample_model
from sparsediff.ui.server import serve


def model() -> str:
    """What to compare on."""
    beside = Path(__file__).parent / "shapes-wan"
    return os.environ.get("MODEL") or (str(beside) if beside.is_dir() else sample_model())


if __name__ == "__main__":
    # A Space sets these two; anywhere else the page stays on this machine.
    server = serve(
        Comparison(model()),
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
    print(f"open {server.address}", flush=True)
    server.wait()
