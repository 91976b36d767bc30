"""The interpreter gate sees faults: each is planted into a copy of a kernel, and a check must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from calls import Call, random_mask
from far_memory import check_forward, numbers, spread
from mass_calls import Mass
from planting import plant, plant_functions
from rule_calls import RULES, mixed, spoilt
from torch import Tensor

from sparsediff.kernels.block_rules import Listed
from sparsediff.kernels.triton import backend, row_lists

RAGGED = Call(mask=random_mask(40, 56, (32, 32), density=0.9), dim=16)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A piece of a kernel file, what stands there instead, and the check that must see it."""

    file: str
    old: str
    new: str
    check: Callable[[], None]
    times: int = 1


def two_blocks_of_text() -> None:
    mask = mixed((32, 32), before=70, rules=(RULES[0], RULES[2]))
    Call(mask=mask, heads=2, dim=16).check_forward(spoilt(mask))


def ruled() -> None:
    mask = mixed((32, 32), before=5, rules=(*RULES[:3], Listed()))
    Call(mask=mask, heads=4, dim=16).check_forward(spoilt(mask))


FAULTS = {
    "tail mask off by one key": Fault(
        file="forward.py",
        old="tl.arange(0, k.shape[0])[None, :] < keys_left,",
        new="tl.arange(0, k.shape[0])[None, :] <= keys_left,",
        check=RAGGED.check_forward,
    ),
    "tail taken for a whole block": Fault(
        file="forward.py",
        old="whole = count - partial.to(tl.int32)",
        new="whole = count",
        check=RAGGED.check_forward,
    ),
    "output not stored": Fault(
        file="forward.py",
        old="tl.store(o_tile, acc.to(OUT.dtype.element_ty), mask=inside)",
        new="tl.store(o_tile, acc.to(OUT.dtype.element_ty), mask=inside & (rows < q_len - 1)[:, None])",
        check=RAGGED.check_forward,
    ),
    "scale applied twice": Fault(
        file="forward.py",
        old="weights = tl.math.exp2(scores * scale_log2 - highest[:, None])",
        new="weights = tl.math.exp2(scores * scale_log2 * scale_log2 - highest[:, None])",
        check=RAGGED.check_forward,
    ),
    "LSE in base 2": Fault(
        file="forward.py",
        old="(m + tl.math.log2(some)) * 0.6931471805599453",
        new="(m + tl.math.log2(some))",
        check=RAGGED.check_forward,
    ),
    "walk without the last block of the lead": Fault(
        file="walk.py",
        old="in_lead = block + 1 < lead",
        new="in_lead = block + 2 < lead",
        check=two_blocks_of_text,
    ),
    "rule that does not move with its row": Fault(
        file="forward.py",
        old="shift = offset - slope * row * Q_BLOCK",
        new="shift = offset",
        check=ruled,
    ),
    "gradient of the LSE forgotten": Fault(
        file="backward.py",
        old="delta -= tl.load(GRAD_LSE + place, mask=rows < q_len, other=0.0)",
        new="delta -= 0.0",
        check=RAGGED.check,
    ),
    "dq without its scale": Fault(
        file="backward.py",
        old="(acc * scale).to(GRAD_Q.dtype.element_ty)",
        new="acc.to(GRAD_Q.dtype.element_ty)",
        check=RAGGED.check,
    ),
    "dkdv reads queries beyond the end": Fault(
        file="backward.py",
        old="scale_log2, ROWS, D, DIM, TAIL,",
        new="scale_log2, ROWS, D, DIM, False,",
        check=RAGGED.check,
    ),
    "mass without its tail": Fault(
        file="mass.py",
        old="weights = tl.where((keys < left)[None, :], weights, 0.0)",
        new="weights = weights",
        check=Mass(q_len=40, kv_len=56, block=(32, 32)).check,
    ),
    "mass stores one block too few": Fault(
        file="mass.py",
        old="inside = blocks < kept",
        new="inside = blocks < kept - 1",
        check=Mass(q_len=40, kv_len=56, block=(32, 32)).check,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_seen(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fault = FAULTS[name]
    fault.check()  # green without the fault
    plant(monkeypatch, tmp_path, fault.file, fault.old, fault.new, times=fault.times)
    with pytest.raises(AssertionError):
        fault.check()


def test_offsets_of_32_bits_are_seen(
    memory: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensors = {name: numbers(i) for i, name in enumerate(("q", "k", "v", "out"))}
    tensors["k"] = spread(memory, tensors["k"], "tokens")
    check_forward(**tensors)
    plant(
        monkeypatch, tmp_path, "forward.py",
        "k = load_rows(k_tile + token.to(tl.int64) * k_token, keys, 0,",
        "k = load_rows(k_tile + token * k_token, keys, 0,",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        check_forward(**tensors)


def test_a_transposed_list_in_another_order_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faulty = plant_functions(
        monkeypatch, tmp_path, row_lists,
        "order = key.argsort(stable=True)\n    counts",
        "order = key.argsort(stable=True).roll(1)\n    counts",
    )  # fmt: skip
    call = Call(mask=random_mask(75, 90, (32, 32), density=0.6), dim=16)
    monkeypatch.setattr(backend, "transposed_lists", faulty.transposed_lists)
    with pytest.raises(AssertionError):
        call.check()
