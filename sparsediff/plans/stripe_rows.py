"""StripeRows: the block numbers of a plan's stripes, kept beside its JSON as two arrays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sparsediff.kernels.errors import PlanError
from sparsediff.plans.file_limits import TABLES, refuse_pickles
from sparsediff.search.patterns.pattern import Stripe

# As safetensors names them, and as numpy reads them.
_ARRAYS = {"columns": ("I32", "<i4"), "starts": ("I64", "<i8")}

Array = NDArray[np.int64]


def pack(stripes: Iterable[Stripe]) -> bytes:
    """Stripes as a safetensors file: ``columns`` int32 of all of them, ``starts`` int64 ``[rows + 1]``.

    Stripe i has ``columns[starts[i] : starts[i + 1]]``.
    """
    from safetensors.numpy import save

    lists = [stripe.columns for stripe in stripes]
    starts = np.cumsum([0, *map(len, lists)], dtype="<i8")
    columns = np.fromiter((n for columns in lists for n in columns), dtype="<i4", count=starts[-1])
    return bytes(save({"columns": columns, "starts": starts}))


def unpack(content: bytes, *, blocks: int) -> tuple[Stripe, ...]:
    """The stripes of a safetensors file, every one with block numbers below `blocks`.

    Raises PlanError for another dtype or shape, and for numbers that do not ascend or lie outside.
    """
    refuse_pickles(TABLES, content[:8])
    arrays = _arrays(content)
    columns, starts = arrays["columns"], arrays["starts"]
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(columns):
        raise _broken(f"starts has to lead from 0 to the {len(columns)} columns")
    if (np.diff(starts) < 1).any():
        row = int(np.argmax(np.diff(starts) < 1))
        raise _broken(f"row {row} is empty or ends before it starts")
    _check_columns(columns, starts, blocks)
    rows = np.split(columns, starts[1:-1])
    return tuple(Stripe(columns=tuple(row.tolist())) for row in rows)


def _arrays(content: bytes) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    try:
        found = dict(deserialize(content))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise _broken(f"it is no safetensors file ({error})") from None
    if set(found) != set(_ARRAYS):
        names = ", ".join(sorted(found))[:80] or "nothing"
        raise _broken(f"it holds {names}; needs {' and '.join(_ARRAYS)}")
    arrays = {}
    for name, (dtype, layout) in _ARRAYS.items():
        entry = found[name]
        if entry["dtype"] != dtype or len(entry["shape"]) != 1:
            shape = list(entry["shape"])
            raise _broken(f"{name} is {entry['dtype']} of shape {shape}; needs {dtype} of one axis")
        arrays[name] = np.frombuffer(entry["data"], dtype=layout).astype(np.int64)
    return arrays


def _check_columns(columns: Array, starts: Array, blocks: int) -> None:
    outside = (columns < 0) | (columns >= blocks)
    rises = np.ones(len(columns), dtype=bool)
    rises[1:] = columns[1:] > columns[:-1]
    rises[starts[:-1]] = True
    bad = outside | ~rises
    if not bad.any():
        return
    place = int(np.argmax(bad))
    row = int(np.searchsorted(starts, place, side="right")) - 1
    why = f"needs 0 to {blocks - 1}" if outside[place] else "needs ascending numbers"
    raise _broken(f"row {row}, column {int(columns[place])} at {place - int(starts[row])}: {why}")


def _broken(why: str) -> PlanError:
    return PlanError(f"{TABLES}: {why}. Save the plan again.")
