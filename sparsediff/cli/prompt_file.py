"""Prompts from a text file, one a line."""

from __future__ import annotations

from pathlib import Path


def read_prompts(file: str, limit: int) -> list[str]:
    """The first `limit` prompts; empty lines do not count.

    Raises SparseError when the file cannot be read, holds none, or `limit` is below 1.
    """
    from sparsediff.kernels.errors import SparseError  # brings in torch, so not for --help

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SparseError(
            f"The prompt file {file} cannot be read; needs one prompt a line."
        ) from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise SparseError(f"{file} holds no prompt; needs one prompt a line.")
    if limit < 1:
        raise SparseError(f"--limit {limit}: needs at least 1.")
    return prompts[:limit]
