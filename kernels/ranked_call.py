"""RankedCall: the kind of a call, the machine and the versions that the backends' order depends on."""

from __future__ import annotations

import functools
import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from sparsediff.kernels.inputs import AttentionInputs

PACKAGES = ("triton", "flash-attn-4")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedCall:
    """What the order depends on; calls that differ in lengths and density alone share it.

    ``device`` has an index on CUDA; ``head_dim`` is padded as kernels pad it.
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    block_size: tuple[int, int]
    needs_grad: bool
    return_lse: bool

    @classmethod
    def of(cls, inputs: AttentionInputs) -> RankedCall:
        """The kind of a call."""
        return cls(
            device=inputs.q.device,
            dtype=inputs.q.dtype,
            head_dim=padded(inputs.q.shape[3]),
            block_size=inputs.mask.block_size,
            needs_grad=inputs.needs_grad,
            return_lse=inputs.return_lse,
        )

    @property
    def key(self) -> str:
        """Its name in the ranking file, in words: machine, kind of call, versions."""
        rows, columns = self.block_size
        words = [
            device_name(self.device),
            str(self.dtype).removeprefix("torch."),
            f"head dim {self.head_dim}",
            f"blocks {rows}x{columns}",
            "with gradient" if self.needs_grad else "forward",
            "with lse" if self.return_lse else "output only",
            versions(),
        ]
        return ", ".join(words)


def padded(head_dim: int) -> int:
    """The head dim that kernels pad to: a multiple of 32 up to 128, then a power of two."""
    return -(-head_dim // 32) * 32 if head_dim <= 128 else 1 << (head_dim - 1).bit_length()


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name; for a processor also how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} with {torch.get_num_threads()} threads"


@functools.cache
def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(errors="replace").splitlines() if facts.exists() else []
    model = next((line for line in lines if line.startswith("model name")), "")
    return model.partition(":")[2].strip() or platform.machine()


@functools.cache
def versions() -> str:
    """Versions of the packages whose kernels are ranked, and a hash of this package's sources."""
    found = [f"torch {torch.__version__}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.*")):
        if source.suffix in {".py", ".cpp"}:
            digest.update(source.read_bytes())
    return ", ".join([*found, f"kernels {digest.hexdigest()[:12]}"])
