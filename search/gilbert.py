"""The generalised Hilbert curve through a box of any size, after Jakub Červený's gilbert.

A Hilbert curve needs a cube of a power of two. The generalised one halves a box wherever it is long
enough, keeps the halves even where it can, and turns each part so that it begins beside the end of the
part before it. It ends beside its start along the longest edge, so parts join.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

Corner = tuple[int, int, int]
Edge = tuple[int, int]  # axis, and how many tokens it spans from the corner, negative if backwards
Box = tuple[Corner, Edge, Edge, Edge]


def gilbert(size: tuple[int, int, int]) -> Tensor:
    """Raster places of the tokens of a box of (frames, height, width) along the curve: int64 ``[n]``.

    Consecutive tokens are neighbours along one axis; where edges are odd, a few steps are diagonal.
    """
    longest = sorted(range(3), key=lambda axis: -size[axis])
    first, second, third = ((axis, size[axis]) for axis in longest)
    runs = list(_runs(((0, 0, 0), first, second, third)))
    strides = torch.tensor((size[1] * size[2], size[2], 1))
    corners, axes, lengths = (torch.tensor(column) for column in zip(*runs, strict=True))
    begins = (corners * strides).sum(dim=1)
    steps = strides[axes] * lengths.sign()
    count = lengths.abs()
    within = torch.arange(int(count.sum())) - (count.cumsum(0) - count).repeat_interleave(count)
    return begins.repeat_interleave(count) + steps.repeat_interleave(count) * within


def _runs(box: Box) -> Iterator[tuple[Corner, int, int]]:
    """Straight pieces of the curve, in its order: corner, axis, signed length."""
    waiting = [box]
    while waiting:
        corner, *edges = waiting.pop()
        long = [edge for edge in edges if abs(edge[1]) > 1]
        if len(long) < 2:
            axis, length = long[0] if long else edges[0]
            yield corner, axis, length
        else:
            waiting += reversed(_parts(corner, *edges))


def _parts(corner: Corner, a: Edge, b: Edge, c: Edge) -> list[Box]:
    """The boxes that the curve through a box visits, from the corner to the far end of `a`."""
    long, wide, deep = abs(a[1]), abs(b[1]), abs(c[1])
    if 2 * long > 3 * wide and 2 * long > 3 * deep:
        return [(corner, _half(a), b, c), (_moved(corner, _half(a)), _rest(a), b, c)]
    if 3 * wide > 4 * deep:
        return [(at, x, z, y) for at, x, y, z in _out_and_back(corner, a, b, c)]
    if 3 * deep > 4 * wide:
        return _out_and_back(corner, a, c, b)
    return _all_around(corner, a, b, c)


def _out_and_back(corner: Corner, a: Edge, b: Edge, c: Edge) -> list[Box]:
    """Up the first half of `b`, along all of `a` over the other half, and down again; `c` is whole."""
    up, far = _half(b), _half(a)
    return [
        (corner, up, far, c),
        (_moved(corner, up), a, c, _rest(b)),
        (_moved(corner, _end(a), _end(up)), _back(up), _back(_rest(a)), c),
    ]


def _all_around(corner: Corner, a: Edge, b: Edge, c: Edge) -> list[Box]:
    """All three edges halved: five parts, as the eight of a Hilbert cube with three pairs joined."""
    up, far, deep = _half(b), _half(a), _half(c)
    return [
        (corner, up, deep, far),
        (_moved(corner, up), c, far, _rest(b)),
        (_moved(corner, _end(up), _end(c)), a, _back(up), _back(_rest(c))),
        (_moved(corner, _end(a), up, _end(c)), _back(c), _back(_rest(a)), _rest(b)),
        (_moved(corner, _end(a), _end(up)), _back(up), deep, _back(_rest(a))),
    ]


def _half(edge: Edge) -> Edge:
    """Half of an edge, rounded to an even number where there is room for one."""
    axis, length = edge
    half = abs(length) // 2
    half += half % 2 if abs(length) > 2 else 0
    return axis, half if length > 0 else -half


def _rest(edge: Edge) -> Edge:
    """What `_half` leaves of an edge."""
    return edge[0], edge[1] - _half(edge)[1]


def _back(edge: Edge) -> Edge:
    return edge[0], -edge[1]


def _end(edge: Edge) -> Edge:
    """From the first token of an edge to its last."""
    return edge[0], edge[1] - (1 if edge[1] > 0 else -1)


def _moved(corner: Corner, *edges: Edge) -> Corner:
    place = list(corner)
    for axis, length in edges:
        place[axis] += length
    return place[0], place[1], place[2]
