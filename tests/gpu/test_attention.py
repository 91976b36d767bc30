"""Forward, backward and block mass against float64 on the device, over shapes, layouts and dtypes."""

from __future__ import annotations

import pytest
import torch
from gpu_call import LAYOUTS, GpuCall

BLOCKS = ((128, 64), (64, 64), (128, 128))
DIMS = (32, 64, 96, 128, 256)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dim", DIMS)
def test_forward(device: torch.device, half: torch.dtype, dim: int, block: tuple[int, int]) -> None:
    GpuCall(device=device, dtype=half, dim=dim, block=block).check_forward()


@pytest.mark.parametrize("dim", [64, 128])
def test_forward_of_every_dtype(device: torch.device, dtype: torch.dtype, dim: int) -> None:
    GpuCall(device=device, dtype=dtype, dim=dim).check_forward()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dim", DIMS)
def test_backward(
    device: torch.device, half: torch.dtype, dim: int, block: tuple[int, int]
) -> None:
    GpuCall(device=device, dtype=half, dim=dim, block=block).check_backward()


@pytest.mark.parametrize("dim", [64, 128])
def test_backward_of_every_dtype(device: torch.device, dtype: torch.dtype, dim: int) -> None:
    GpuCall(device=device, dtype=dtype, dim=dim).check_backward()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dim", DIMS)
def test_mass(device: torch.device, half: torch.dtype, dim: int, block: tuple[int, int]) -> None:
    GpuCall(device=device, dtype=half, dim=dim, block=block).check_mass()


@pytest.mark.parametrize("lens", [(0, 333), (1, 64), (128, 200), (333, 321)])
def test_padding(device: torch.device, half: torch.dtype, lens: tuple[int, int]) -> None:
    call = GpuCall(device=device, dtype=half, kv_lens=lens)
    call.check_forward()
    call.check_backward()


def test_mass_of_padding(device: torch.device, half: torch.dtype) -> None:
    GpuCall(device=device, dtype=half, kv_lens=(70, 300)).check_mass()


@pytest.mark.parametrize(
    ("q_len", "kv_len"), [(1, 1), (64, 64), (65, 129), (128, 63), (100, 512), (513, 40)]
)
def test_ragged_lengths(device: torch.device, half: torch.dtype, q_len: int, kv_len: int) -> None:
    call = GpuCall(device=device, dtype=half, q_len=q_len, kv_len=kv_len)
    call.check_forward()
    call.check_backward()
    call.check_mass()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_views(device: torch.device, half: torch.dtype, layout: str) -> None:
    call = GpuCall(device=device, dtype=half, layout=layout)
    call.check_forward()
    call.check_backward()
    call.check_mass()


def test_shared_pattern(device: torch.device, half: torch.dtype) -> None:
    call = GpuCall(device=device, dtype=half, shared=True)
    call.check_forward()
    call.check_backward()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_extreme_densities(device: torch.device, half: torch.dtype, density: float) -> None:
    call = GpuCall(device=device, dtype=half, density=density)
    call.check_forward()
    call.check_backward()
