"""The cpu backend: C++ kernels where a compiler is found, the gather path where there is none."""

from __future__ import annotations

import os

from torch import Tensor

from sparsediff.kernels.cpu.library import DTYPE_CODES, NativeLibrary, native_library
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.gather import GatherBackend
from sparsediff.kernels.inputs import AttentionInputs, MassInputs

PIN = "SPARSEDIFF_CPU_KERNEL"


class CpuBackend:
    """Forward only, on CPU tensors; $SPARSEDIFF_CPU_KERNEL=native or gather pins one of the two."""

    name = "cpu"

    def __init__(self) -> None:
        self._gather = GatherBackend()

    @property
    def variant(self) -> str:
        """What computes: "native-avx512-bf16", "native-avx512", "native-avx", ... or "gather"."""
        library = self._library()
        return library.variant if isinstance(library, NativeLibrary) else "gather"

    @property
    def pools(self) -> bool:
        """Whether it computes pooled blocks itself."""
        return isinstance(self._library(), NativeLibrary)

    @property
    def native_reason(self) -> str | None:
        """Why the C++ kernels are not used, or None when they are."""
        library = self._library()
        return library if isinstance(library, str) else None

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here."""
        return self._reasons(inputs)

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""
        library = self._library()
        path = library if isinstance(library, NativeLibrary) else self._gather
        return path.attention(inputs)

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """Why the block mass cannot be computed here."""
        return self._reasons(inputs)

    def mass(self, inputs: MassInputs) -> Tensor:
        """fp32 ``[b, h, m, n]``."""
        library = self._library()
        path = library if isinstance(library, NativeLibrary) else self._gather
        return path.mass(inputs)

    def _library(self) -> NativeLibrary | str:
        pinned = os.environ.get(PIN, "")
        if pinned not in {"", "native", "gather"}:
            raise SparseError(f'{PIN}={pinned!r}; give "native", "gather", or leave it unset.')
        return f"{PIN}=gather" if pinned == "gather" else native_library()

    def _reasons(self, inputs: AttentionInputs | MassInputs) -> list[str]:
        found = []
        if inputs.q.device.type != "cpu":
            return [f"the tensors are on {inputs.q.device}, not on the CPU"]
        if inputs.q.dtype not in DTYPE_CODES:
            found.append(f"{inputs.q.dtype} (needs float32, bfloat16 or float16)")
        if inputs.needs_grad:
            found.append("a gradient is needed and this backend has no backward")
        library = self._library()
        if isinstance(library, str) and os.environ.get(PIN) == "native":
            found.append(f"{PIN}=native, but {library}")
        return found
