"""No memory and no disk left: said with a remedy, the model as before, and the next run works."""

import errno

import pytest
import torch
from toy_folder import PROMPT

from sparsediff.root_hooks import session_on
from sparsediff.ui.desk import Desk
from sparsediff.ui.plan_desk import PlanDesk

VALUES = {"prompt": PROMPT, "method": "window", "density": 0.4, "gate": False, "seed": 51}
# What torch raises for a tensor that is larger than the memory of a CPU.
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU), MemoryError()]
SECOND_STEP = 6  # forwards: two of each step of the warm-up, then those of the run


@pytest.fixture
def desk(comparison, tmp_path):
    return Desk(comparison, tmp_path / "files")


@pytest.fixture
def exhausted(comparison):
    """Let a forward of the model raise."""
    model, hooks = comparison.loaded(lambda _: None).pipe.transformer, []

    def arrange(error, at):
        calls = []

        def hook(*_):
            calls.append(1)
            if len(calls) > at:
                raise error

        hooks.append(model.register_forward_pre_hook(hook))

    yield arrange, lambda: [hook.remove() for hook in hooks]
    for hook in hooks:
        hook.remove()


def last(told):
    *_, shown = told
    return shown


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_memory(desk, comparison, exhausted, error):
    arrange, over = exhausted
    arrange(error, SECOND_STEP)
    shown = last(desk.compare("page", VALUES))
    assert 'data-state="error"' in shown.status
    assert "cpu ran out of memory. Use fewer frames or a smaller size" in shown.status
    assert not shown.running
    over()
    model = comparison.loaded(lambda _: None).pipe.transformer
    assert session_on(model) is None
    assert not model._forward_pre_hooks
    assert last(desk.compare("page", VALUES)).compared.result.report.sparse_calls > 0


def test_no_memory_while_searching(desk, exhausted):
    arrange, over = exhausted
    arrange(RuntimeError(CPU), 2)
    choices = {"value": 0.6, "cost": "flops"}
    shown = last(PlanDesk(desk).search("page", VALUES | {"method": "adaspa"}, choices))
    over()
    assert "ran out of memory while searching. Use fewer frames" in shown.status
    assert list(desk.folder.glob("plan-*")) == []


def test_another_error_is_not_called_memory(desk, exhausted):
    arrange, _ = exhausted
    arrange(RuntimeError("broken"), SECOND_STEP)
    assert "memory" not in last(desk.compare("page", VALUES | {"seed": 52})).status


def test_no_disk(desk, monkeypatch):
    from sparsediff.ui import clips

    def full(frames, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(clips, "write_frames", full)
        shown = last(desk.compare("page", VALUES))
    assert "No space left on device. Make room on its disk, then press Compare" in shown.status
    assert str(desk.folder) not in shown.status
    assert list(desk.folder.iterdir()) == []  # the halves make room too
    again = last(desk.compare("page", VALUES))
    assert again.compared.dense_reused
    assert again.clips.dense.is_file()
