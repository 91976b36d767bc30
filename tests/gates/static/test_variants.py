"""How often a kernel is compiled: lengths and densities share one, strides of the inputs do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from configurations import Configuration, launch_of
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from sparsediff.kernels.triton.launch import Launch
from sparsediff.kernels.triton.walk import NOT_SPECIALIZED

BACKEND = make_backend(GPUTarget("cuda", 90, 32))


def variant(launch: Launch) -> list[Any]:
    """What Triton compiles a launch for: types, and values that it treats as special."""
    kernel = launch.kernel
    bind = create_function_from_signature(kernel.signature, kernel.params, BACKEND)
    _, found, _ = bind(**launch.arguments, **launch.constants)
    return list(found)


@pytest.mark.parametrize("kernel", ["forward", "mass", "pooled", "delta", "dq", "dkdv"])
def test_lists_of_any_length_share_a_variant(kernel: str) -> None:
    case = Configuration(
        kernel=kernel, arch=90, dim=64, dtype=torch.bfloat16, block_size=(128, 64), general=False
    )
    launch = launch_of(case)
    sizes = {name: n for name, n in launch.arguments.items() if name in NOT_SPECIALIZED}
    assert sizes
    first = variant(launch)
    for number in (1, 7, 16):
        others = {**launch.arguments, **dict.fromkeys(sizes, number)}
        assert variant(replace(launch, arguments=others)) == first
    stride = next(name for name in launch.arguments if name.endswith("_token"))
    odd = {**launch.arguments, stride: 7}
    assert variant(replace(launch, arguments=odd)) != first
