"""What one process fails at, all fail at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparsediff.kernels.errors import SparseError


@contextmanager
def shared_failure(accelerator: Any) -> Iterator[None]:
    """At the end of the with-block processes tell each other whether they came through.

    A full disk stops the process that writes; without this, the others would wait for it in their
    next exchange until something kills them. Inside the block nothing may be exchanged that a failure
    could come before. Raises SparseError with the words of the process that failed in those that did
    not, and what was raised in that one.
    """
    from accelerate.utils import gather_object

    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    said = gather_object([None if failure is None else str(failure)])
    if failure is not None:
        raise failure
    for number, words in enumerate(said):
        if words is not None:
            raise SparseError(f"Process {number} of {accelerator.num_processes} failed: {words}")
