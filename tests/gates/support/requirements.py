"""What the static gate asks of every compiled kernel."""

from __future__ import annotations

import torch
from ahead_of_time import DRIVER_SHARED, SHARED, Compiled, compile_launch
from configurations import Configuration, copies_per_turn, launch_of

from sparsediff.kernels.triton.launch import Launch

# How the tensor cores' products are called in machine code: warps, groups of four warps, one thread.
PRODUCTS = {80: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}


def misses(case: Configuration) -> list[str]:
    """Compile one launch; what it lacks, in words."""
    launch = launch_of(case)
    return shortcomings(case, launch, compile_launch(launch, case.arch))


def shortcomings(case: Configuration, launch: Launch, found: Compiled) -> list[str]:
    """No spills, tensor cores for 16 bits, whole tiles copied ahead, shared memory that is there."""
    missing = []
    limit = SHARED[case.arch] - DRIVER_SHARED
    if found.spills:
        missing.append(f"{found.spills} spills")
    if found.shared > limit or found.programs < 1:
        missing.append(f"{found.shared} bytes of shared memory of {limit}")
    if case.kernel == "delta":
        return missing
    if case.dtype != torch.float32 and found.matrix != PRODUCTS[case.arch]:
        missing.append(f"products {found.matrix or 'none'} instead of {PRODUCTS[case.arch]}")
    if case.kernel == "hopper":  # a producer warp copies, behind no loop of its own
        return missing + ([] if found.bulk else ["no bulk copies"])
    copied = copies_per_turn(launch)
    if found.copied < copied:
        missing.append(f"{found.copied} bytes copied ahead per turn of {copied}")
    # With s stages s - 1 tiles are under way, one of which is waited for.
    groups = (launch.stages - 2) * (1 if case.kernel == "mass" else 2)
    if found.wait < groups:
        missing.append(f"waits for all but {found.wait} copies; {launch.stages} stages: {groups}")
    return missing
