"""Building the C++ kernels: the cache, the pin, and every way in which there are none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_oracle import PATH

from sparsediff.kernels import BackendError, BlockMask, SparseError, block_sparse_attention
from sparsediff.kernels.cpu import build, library
from sparsediff.kernels.registry import find_backend

MASK = BlockMask.full(block_size=16, q_len=32, kv_len=32)
needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")


def tensors() -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(1, 32, 2, 8, generator=noise) for _ in range(3)]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and nothing loaded yet."""
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path / "cache"))
    library.native_library.cache_clear()
    yield tmp_path / "cache"
    library.native_library.cache_clear()


@pytest.fixture
def tiny(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources that compile at once."""
    sources = fresh.parent / "sources"
    sources.mkdir()
    (sources / build.ENTRY).write_text('extern "C" int nothing() { return 0; }\n')
    monkeypatch.setattr(build, "SOURCES", sources)
    return fresh


@needs_compiler
def test_built_once_and_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build()
    assert first.parent == tiny
    assert stat.S_IMODE(tiny.stat().st_mode) == 0o700
    assert [path.name for path in tiny.iterdir()] == [first.name]
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.build() == first


@needs_compiler
def test_other_sources_or_flags_are_another_library(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.build()
    (build.SOURCES / build.ENTRY).write_text('extern "C" int nothing() { return 1; }\n')
    second = build.build()
    monkeypatch.setattr(build, "BASE_FLAGS", (*build.BASE_FLAGS, "-DOTHER"))
    assert len({first, second, build.build()}) == len(list(tiny.iterdir())) == 3


def test_no_compiler(ran: list[str], fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.native_library.cache_clear()
    backend = find_backend("cpu")
    assert backend.variant == "gather"  # type: ignore[attr-defined]
    assert "no C++ compiler found" in backend.native_reason  # type: ignore[attr-defined]
    block_sparse_attention(*tensors(), MASK, backend="cpu")
    assert ran == ["gather"]
    assert not fresh.exists()


def test_no_compiler_and_native_wanted(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("SPARSEDIFF_CPU_KERNEL", "native")
    library.native_library.cache_clear()
    with pytest.raises(BackendError, match="SPARSEDIFF_CPU_KERNEL=native, but no C\\+\\+ compiler"):
        block_sparse_attention(*tensors(), MASK, backend="cpu")


@pytest.mark.parametrize("pin", ["gather", "native"])
def test_pin(pin: str, monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    if pin == "native" and PATH["cpu"] != "native":
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("SPARSEDIFF_CPU_KERNEL", pin)
    block_sparse_attention(*tensors(), MASK, backend="cpu")
    assert ran == [pin]


def test_unknown_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIFF_CPU_KERNEL", "fast")
    with pytest.raises(SparseError, match="SPARSEDIFF_CPU_KERNEL='fast'"):
        block_sparse_attention(*tensors(), MASK, backend="cpu")


def test_a_compiler_that_fails_is_a_reason(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fresh.parent / "broken-compiler"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "error: cannot" >&2\nexit 1\n')
    fake.chmod(0o700)
    monkeypatch.setenv("CXX", str(fake))
    library.native_library.cache_clear()
    reason = library.native_library()
    assert isinstance(reason, str)
    assert "error: cannot" in reason
    assert not list(fresh.iterdir())


@needs_compiler
@pytest.mark.parametrize("method", ["attention", "mass"])
def test_a_library_that_computes_wrong_numbers_is_not_used(
    method: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARSEDIFF_CACHE")  # the library itself is right: take the built one
    right = getattr(library.NativeLibrary, method)

    def wrong(self: Any, inputs: Any) -> Any:
        found = right(self, inputs)
        return (found[0] * 1.01, found[1]) if method == "attention" else found + 1e-3

    monkeypatch.setattr(library.NativeLibrary, method, wrong)
    assert "wrong numbers in torch.float32" in str(library.native_library())
    assert find_backend("cpu").variant == "gather"  # type: ignore[attr-defined]


@needs_compiler
def test_a_cached_file_that_others_may_write_is_built_anew(tiny: Path) -> None:
    built = build.build()
    before = built.stat().st_ino
    built.chmod(0o777)
    assert build.build() == built
    assert built.stat().st_ino != before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
@needs_compiler
def test_a_cache_that_cannot_be_written(tiny: Path) -> None:
    tiny.parent.chmod(0o500)
    try:
        assert build.build().parent != tiny
    finally:
        tiny.parent.chmod(0o700)


@needs_compiler
@pytest.mark.parametrize("flags", [("-march=x86-64-v3", "-pthread"), ("-pthread",)], ids=str)
def test_narrower_vectors_and_plain_threads(
    flags: tuple[str, ...], fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other machines build: no AVX-512, or no AVX at all, and no OpenMP."""
    monkeypatch.setattr(build, "FLAG_SETS", (flags,))
    try:
        path = build.build()
    except build.BuildError:
        pytest.skip("this machine has other instructions")
    built = library.NativeLibrary(str(path))
    assert built.variant in {"native-avx", "native-vector4"}
    assert library.check_library(built) is None
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert library.check_library(built) is None
    finally:
        torch.set_num_threads(before)
