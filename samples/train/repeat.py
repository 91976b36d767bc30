"""Repeat shapes-wan from nothing: autoencoder, transformer, pipeline, accuracy.

Run it again after an interruption: it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import checkpoint

HERE = Path(__file__).resolve().parent


def run(script: str, *arguments: str | Path) -> None:
    """Run one of the scripts beside this one; exits with its status when it fails."""
    status = subprocess.call([sys.executable, str(HERE / script), *map(str, arguments)])
    if status:
        raise SystemExit(status)


def train(script: str, folder: Path, *arguments: str | Path) -> Path:
    """Start a training in `folder`, or go on with it; gives its last checkpoint."""
    started = any(folder.glob("step-*[0-9]"))
    run(script, "--resume" if started else "--output", folder, *arguments)
    return checkpoint.newest(folder)


def main() -> None:
    """Run the four parts in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    device = ("--device", args.device)
    vae = train("train_vae.py", args.output / "vae", *device) / "vae"
    recipe = ("--vae", vae, "--recipe", "whole", "--compile")
    transformer = train("train_transformer.py", args.output / "transformer", *recipe, *device)
    model = args.output / "shapes-wan"
    parts = ("--vae", vae, "--transformer", transformer / "transformer")
    run("build_pipeline.py", *parts, "--output", model)
    run("evaluate.py", "accuracy", "--model", model, *device)


if __name__ == "__main__":
    main()
