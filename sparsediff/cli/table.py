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
    cells = [cell for cell in column if cell]
    return sum(cell[0].isdigit() for cell in cells) * 2 > len(cells)
