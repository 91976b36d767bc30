"""Memory for tensors that lie gigabytes apart."""

from __future__ import annotations

import pytest
from far_memory import ELEMENTS, address_space
from torch import Tensor


@pytest.fixture(scope="session")
def memory() -> Tensor:
    """Address space without memory behind it until it is written."""
    space = address_space()
    if space is None:
        pytest.skip(f"no {ELEMENTS * 2 >> 30} GiB of address space")
    return space
