"""`sparsediff ui`: the comparison app in the browser."""

from __future__ import annotations

import argparse
from typing import Any

from sparsediff.cli.generate_arguments import DTYPE_NAMES

_OWN = ("127.0.0.1", "localhost", "::1")  # hosts that only this machine can ask


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "ui",
        help="compare dense and sparse in the browser",
        description="Open a page on this machine in which a prompt is run dense and sparse from the "
        "same seed, one over the other. Nothing is shared or sent anywhere.",
        epilog="example: sparsediff ui --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    )
    p.add_argument("--model", help="pipeline folder or Hub id (default: the sample model)")
    p.add_argument(
        "--plan",
        action="append",
        default=[],
        metavar="PLAN",
        help="folder or Hub id of a plan to choose from; may be repeated",
    )
    p.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    p.add_argument("--dtype", choices=DTYPE_NAMES, help="dtype of the weights")
    kept = p.add_mutually_exclusive_group()
    kept.add_argument(
        "--gallery",
        metavar="DIR",
        help="where past runs are kept, to be opened again (default: past-runs in sparsediff's cache "
        "folder; nowhere when --host lets others in, who would see them)",
    )
    kept.add_argument("--no-gallery", dest="keep", action="store_false", help="keep no past runs")
    p.add_argument("--host", default="127.0.0.1", help="who may connect (default: %(default)s)")
    p.add_argument(
        "--port", type=int, default=7860, help="0 takes a free one; default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Run the sub-command until it is interrupted; raises SparseError."""
    # The one door from here to the room above: the command line composes everything.
    from sparsediff.ui.server import require_gradio, serve

    require_gradio()
    comparison = _comparison(args)
    gallery = gallery_of(args)
    server = serve(comparison, host=args.host, port=args.port or None, gallery=gallery)
    print(f"{comparison.model} on {comparison.device_words}")
    if gallery is not None:
        print(f"runs are kept in {gallery.folder}")
    print(f"next: open {server.address} in a browser; Ctrl-C ends it", flush=True)
    try:
        server.wait()
    finally:
        server.close()
    return 0


def gallery_of(args: argparse.Namespace) -> Any:
    """Where runs are kept, if anywhere; SparseError for a folder that cannot be written."""
    from pathlib import Path

    from sparsediff.output_folder import require_writable
    from sparsediff.ui.gallery import Gallery, gallery_folder

    if not args.keep or (args.gallery is None and args.host not in _OWN):
        return None
    if args.gallery is not None:
        require_writable(Path(args.gallery), advice="Choose another with --gallery.")
    return Gallery(Path(args.gallery) if args.gallery is not None else gallery_folder())


def _comparison(args: argparse.Namespace) -> Any:
    from pathlib import PurePath

    from sparsediff.loading import hide_library_bars
    from sparsediff.plans import PatternPlan
    from sparsediff.ui.comparison import Comparison
    from sparsediff.ui.sample_model import sample_model, sample_plans

    hide_library_bars()
    model = args.model or sample_model()
    places = [*args.plan, *([] if args.model else map(str, sample_plans(model)))]
    plans = {f"plan {PurePath(name).name}": PatternPlan.from_pretrained(name) for name in places}
    return Comparison(model, plans=plans, device=args.device, dtype=args.dtype)
