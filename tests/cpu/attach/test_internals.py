"""What diffusers does not promise to keep: one message when it has moved, and nothing attached."""

from __future__ import annotations

import sys
from typing import Any

import diffusers.hooks.hooks
import diffusers.models.attention_dispatch
import pytest
from tiny_pipelines import wan
from untouched import states

from sparsediff import internals
from sparsediff.kernels.errors import SparseError

HOOKS, DISPATCH = diffusers.hooks.hooks, diffusers.models.attention_dispatch


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (DISPATCH, "_AttentionBackendRegistry", "_AttentionBackendRegistry not found"),
        (DISPATCH._AttentionBackendRegistry, "_backends", "_AttentionBackendRegistry._backends"),
        (HOOKS, "StateManager", "hooks.StateManager not found"),
        (HOOKS.StateManager, "set_context", "StateManager.set_context not found"),
    ],
)
def test_moved_names_are_one_message(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, said: str
) -> None:
    pipe = wan()
    before = states(pipe)
    monkeypatch.delattr(owner, name)
    monkeypatch.delitem(sys.modules, "sparsediff.internals")
    with pytest.raises(SparseError, match=f"diffusers .* has moved .*{said}.*Install a version"):
        pipe.enable_sparse_attention()
    assert states(pipe) == before


def test_all_that_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HOOKS, "StateManager")
    monkeypatch.delattr(HOOKS, "HookFunctionReference")
    with pytest.raises(SparseError, match=r"HookFunctionReference, .*StateManager not found"):
        internals._found()
