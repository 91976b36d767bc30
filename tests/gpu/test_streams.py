"""Kernels start on the current stream of their tensors' device, whatever device is current."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gpu_call import GpuCall

pytestmark = pytest.mark.cuda_only


def test_side_stream(device: torch.device) -> None:
    """Inputs are made late on a side stream; a launch on another stream would read NaN."""
    call = GpuCall(device=device, layout="heads first")
    ready = tuple(x.contiguous() for x in call.tensors())
    right = call.run(*ready)
    mask = call.mask()
    late = tuple(torch.full_like(x, torch.nan) for x in ready)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # a tenth of a second
        for x, numbers in zip(late, ready, strict=True):
            x.copy_(numbers)
        found = call.run(*late, mask=mask)
        copies = tuple(x.clone() for x in found)
    stream.synchronize()
    for a, b in zip(right, copies, strict=True):
        assert torch.equal(a, b)


def test_two_streams_at_once(device: torch.device) -> None:
    calls = [GpuCall(device=device, dim=dim) for dim in (64, 128)]
    inputs = [(call.tensors(), call.mask()) for call in calls]
    right = [call.run(*x, mask=mask) for call, (x, mask) in zip(calls, inputs, strict=True)]
    streams = [torch.cuda.Stream(device) for _ in calls]
    torch.cuda.synchronize()
    found = []
    for stream, call, (x, mask) in zip(streams, calls, inputs, strict=True):
        with torch.cuda.stream(stream):
            found.append([call.run(*x, mask=mask) for _ in range(10)][-1])
    torch.cuda.synchronize()
    for a, b in zip(right, found, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_device_that_is_not_current() -> None:
    call = GpuCall(device=torch.device("cuda", 1))
    with torch.cuda.device(0):
        found = call.run()
        call.check_backward()
    right = dataclasses.replace(call, device=torch.device("cuda", 0)).run()
    assert found[0].device == call.device
    assert torch.equal(found[0].cpu(), right[0].cpu())
