"""Aligned plain-text tables."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Rows of equal length in aligned columns; numbers to the right, words to the left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [_mostly_numbers(column) for column in columns]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _mostly_numbers(column: Sequence[str]) -> bool:
    cells = [cell.split() for cell in column if cell]
    # "0.200 in the 48 calls that" begins with a digit and is a sentence; "1.5 GiB" is a number.
    numbers = sum(len(words) <= 2 and words[0][0].isdigit() for words in cells)
    return numbers * 2 > len(cells)
