"""A pipeline that shows no progress bar for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BAR = "_progress_bar_config"  # where diffusers keeps what was asked of the bar


@contextmanager
def quiet(pipe: Any) -> Iterator[None]:
    """Inside, the pipeline shows no bar; afterwards it does what it did."""
    before = vars(pipe).get(_BAR)
    setattr(pipe, _BAR, {"disable": True})
    try:
        yield
    finally:
        if before is None:
            delattr(pipe, _BAR)
        else:
            setattr(pipe, _BAR, before)
