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
from loops import copied_bytes, main_loop, wait_depth
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsediff.kernels.triton.launch import Launch

# Bytes of shared memory and threads of a multiprocessor, by compute capability (CUDA programming
# guide, "Technical specifications per compute capability"). A program may use all but 1 KiB, which
# the driver takes for every program.
SHARED = {80: 164 << 10, 89: 100 << 10, 90: 228 << 10, 100: 228 << 10, 120: 100 << 10}
THREADS = {80: 2048, 89: 1536, 90: 2048, 100: 2048, 120: 1536}
REGISTERS = 65536
TENSOR_COLUMNS = 512  # of the tensor memory of sm_100
DRIVER_SHARED = 1 << 10

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.uint8: "*u8",
}
_BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_DIVISIBLE = [["tt.divisibility", 16]]
_MATRIX = re.compile(r"\b(HMMA|HGMMA|UTCHMMA)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """One kernel in one tile for one GPU generation.

    ``spills`` registers that did not fit: bytes of local memory per thread, plus the instructions that
    move them; ``shared`` bytes of shared memory per program, ``programs`` that fit into a
    multiprocessor; ``matrix`` the tensor-core opcode and ``products`` how many of it. Of the main loop:
    ``copied`` bytes that arrive asynchronously per turn, ``wait`` the groups of copies still under way
    when it multiplies, and ``barriers``. ``bulk`` copies by the bulk copy engine.
    """

    registers: int
    spills: int
    shared: int
    programs: int
    matrix: str
    products: int
    copied: int
    wait: int
    barriers: int
    bulk: int


def compile_launch(launch: Launch, arch: int) -> Compiled:
    """Compile as Triton would at the launch; raises what the compiler raises."""
    kernel = triton.compile(
        _source(launch),
        target=GPUTarget("cuda", arch, 32),
        options={
            "num_warps": launch.warps,
            "num_stages": launch.stages,
            "enable_fp_fusion": True,
        },
    )
    return _read(kernel, arch)


def _source(launch: Launch) -> ASTSource:
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for position, name in enumerate(launch.kernel.arg_names):
        if name in launch.constants:
            signature[name] = "constexpr"
            constants[position,] = launch.constants[name]
            continue
        value = launch.arguments[name]
        if isinstance(value, int) and launch.kernel.params[position].do_not_specialize:
            value = 3 if -(2**31) <= value < 2**31 else 2**31 + 1
        kind, divisible = _argument(value)
        signature[name] = kind
        if kind == "constexpr":
            constants[position,] = value
        elif divisible:
            attributes[position,] = _DIVISIBLE
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)


def _argument(value: Any) -> tuple[str, bool]:
    """Type of an argument in the signature, and whether Triton would call it divisible by 16."""
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


def _read(kernel: Any, arch: int) -> Compiled:
    usage, code = _disassembled(kernel.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"no register count in {usage!r}")
    registers, stack = int(found[1]), int(found[2])
    loop = main_loop(kernel.asm["ptx"])
    opcodes = _MATRIX.findall(code)
    threads = kernel.metadata.num_warps * 32
    shared = int(kernel.metadata.shared)
    columns = int(getattr(kernel.metadata, "tmem_size", 0) or 0)
    return Compiled(
        registers=registers,
        spills=stack + len(re.findall(r"\b(?:LDL|STL)\b", code)),
        shared=shared,
        programs=_programs(
            arch, threads=threads, registers=registers, shared=shared, columns=columns
        ),
        matrix=" ".join(sorted(set(opcodes))),
        products=len(opcodes),
        copied=copied_bytes(loop, threads),
        wait=wait_depth(loop),
        barriers=sum("bar.sync" in line for line in loop),
        bulk=len(re.findall(r"\bUTMALDG\b", code)),
    )


def _programs(arch: int, *, threads: int, registers: int, shared: int, columns: int) -> int:
    """How many programs fit into a multiprocessor; registers come in eights per thread."""
    limits = [
        THREADS[arch] // threads,
        REGISTERS // (-(-registers // 8) * 8 * threads),
        SHARED[arch] // (shared + DRIVER_SHARED),
    ]
    return min([*limits, TENSOR_COLUMNS // columns] if columns else limits)


def _disassembled(cubin: bytes) -> tuple[str, str]:
    """Resource usage and machine code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return _tool("-res-usage", path), _tool("-sass", path)


def _tool(option: str, path: Path) -> str:
    return subprocess.run(
        [str(_BIN / "cuobjdump"), option, str(path)], capture_output=True, text=True, check=True
    ).stdout
