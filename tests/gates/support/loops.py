"""The main loop of a kernel in PTX: the innermost loop that multiplies, and what it copies."""

from __future__ import annotations

import re

_PRODUCT = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma|fma\.rn\.f32)\b")
_LABEL = re.compile(r"^(\$L__BB\d+_\d+):")
_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$L__BB\d+_\d+)")
_COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global[^;]*\],\s*(0x[0-9a-f]+|\d+)")
_WAIT = re.compile(r"cp\.async\.wait_group\s+(0x[0-9a-f]+|\d+)")


def main_loop(ptx: str) -> list[str]:
    """Lines of the innermost loop with products that copies most; none in a kernel without one.

    The loop over the last, partial block is a loop of its own, without copies.
    """
    lines = ptx.splitlines()
    labels = {found[1]: i for i, line in enumerate(lines) if (found := _LABEL.match(line))}
    spans = [
        (labels[found[1]], i)
        for i, line in enumerate(lines)
        if (found := _BRANCH.search(line)) and labels.get(found[1], i) < i
    ]
    loops = [
        lines[first : last + 1]
        for first, last in spans
        if not any(first < a and b < last for a, b in spans)
    ]
    loops = [loop for loop in loops if any(_PRODUCT.search(line) for line in loop)]
    return max(loops, key=lambda loop: copied_bytes(loop, 1), default=[])


def copied_bytes(loop: list[str], threads: int) -> int:
    """Bytes that a program copies asynchronously in one turn of the loop."""
    return threads * sum(
        int(found[1], 0) for line in loop if (found := _COPY.search(line)) is not None
    )


def wait_depth(loop: list[str]) -> int:
    """The most groups of copies that the loop leaves under way when it waits; -1 if it never waits."""
    return max(
        (int(found[1], 0) for line in loop if (found := _WAIT.search(line)) is not None), default=-1
    )
