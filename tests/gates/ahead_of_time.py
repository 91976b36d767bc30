"""Compile a Launch for a GPU that is not there, and read what the compiler made of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from sparsediff.kernels.triton.launch import Launch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Bytes of shared memory that one program may use, by compute capability.
SHARED_LIMIT = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """One kernel in one tile for one GPU generation.

    ``spills`` loads and stores of registers to memory; ``matrix`` tensor-core instructions, of which
    ``warpgroup`` Hopper's; ``copies`` asynchronous copies; ``shared`` bytes of shared memory.
    """

    registers: int
    spills: int
    shared: int
    matrix: int
    warpgroup: int
    copies: int


def compile_launch(launch: Launch, arch: int) -> Compiled:
    """Compile as Triton would at the launch; raises what the compiler raises."""
    names = list(launch.kernel.arg_names)
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for position, name in enumerate(names):
        if name in launch.constants:
            signature[name] = "constexpr"
            constants[position,] = launch.constants[name]
            continue
        value = launch.arguments[name]
        kind, divisible = _argument(value)
        signature[name] = kind
        if kind == "constexpr":
            constants[position,] = value
        elif divisible:
            attributes[position,] = _DIVISIBLE
    source = ASTSource(
        fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    kernel = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={
            "num_warps": launch.warps,
            "num_stages": launch.stages,
            "enable_fp_fusion": True,
        },
    )
    return _read(kernel)


def _argument(value: Any) -> tuple[str, bool]:
    """Type of an argument in the kernel's signature, and whether Triton would call it divisible by 16."""
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype], True
    if value is None or (isinstance(value, int) and value == 1):
        return "constexpr", False
    if isinstance(value, float):
        return "fp32", False
    if isinstance(value, int):
        return ("i32" if -(2**31) <= value < 2**31 else "i64"), value % 16 == 0
    base = str(value.base.dtype).removeprefix("torch.")
    short = {"bfloat16": "bf16", "float16": "fp16"}[base]
    shape = ", ".join(str(n) for n in value.block_shape)
    return f"tensordesc<{short}[{shape}]>", False


def _read(kernel: Any) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(path))
        code = _tool("cuobjdump", "-sass", str(path))
    found = re.search(r"REG:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"no register count in {usage!r}")
    return Compiled(
        registers=int(found[1]),
        spills=len(re.findall(r"\b(?:LDL|STL)\b", code)),
        shared=int(kernel.metadata.shared),
        matrix=len(re.findall(r"\b(?:HMMA|HGMMA|UTCHMMA|UTCMMA)\b", code)),
        warpgroup=len(re.findall(r"\bHGMMA\b", code)),
        copies=len(re.findall(r"\b(?:LDGSTS|UTMALDG|UBLKCP)\b", code)),
    )


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run(
        [str(_BIN / name), *arguments], capture_output=True, text=True, check=True
    ).stdout
