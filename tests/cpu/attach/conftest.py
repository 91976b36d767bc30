"""No test leaves a session enabled for the next one."""

from collections.abc import Iterator

import pytest

from sparsediff import api


@pytest.fixture(autouse=True)
def _disable_all() -> Iterator[None]:
    yield
    for session in list(api._enabled):
        session.disable()
