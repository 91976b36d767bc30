"""Compiling the C++ kernels on first use, with the machine's compiler and a cache on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger("sparsediff.kernels.cpu")

SOURCES = Path(__file__).parent
ENTRY = "native.cpp"
BASE_FLAGS = ("-std=gnu++17", "-O3", "-fPIC", "-shared")
# The first that the compiler accepts is used: OpenMP shares torch's threads, plain threads do not.
FLAG_SETS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-fopenmp",),
    ("-march=native", "-pthread"),
    ("-pthread",),
)
COMPILE_SECONDS = 120


class BuildError(RuntimeError):
    """The C++ kernels could not be built; the message says why."""


def find_compiler() -> list[str] | None:
    """The C++ compiler's command: $CXX if set, else c++, g++ or clang++ on the path, else None."""
    chosen = os.environ.get("CXX")
    if chosen is not None:
        words = shlex.split(chosen)
        return words if words and shutil.which(words[0]) else None
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    return None


def cache_folder() -> Path:
    """Where built kernels are kept: $SPARSEDIFF_CACHE, else the user's cache folder."""
    chosen = os.environ.get("SPARSEDIFF_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparsediff"


def build() -> Path:
    """The shared library, built if the cache has none for these sources, flags, compiler and CPU.

    Raises BuildError when there is no compiler or none of the flag sets works.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler found (set CXX, or install g++ or clang++)")
    folder = _private_folder()
    identity = _identity(compiler)
    errors = []
    for flags in FLAG_SETS:
        key = hashlib.sha256("\0".join((identity, *flags)).encode()).hexdigest()[:20]
        library = folder / f"kernels-{key}.so"
        if _is_ours(library):
            return library
        error = _compile([*compiler, *BASE_FLAGS, *flags], library)
        if error is None:
            logger.info("built the CPU kernels: %s", library)
            return library
        errors.append(f"{' '.join(flags)}: {error}")
    raise BuildError(f"{shlex.join(compiler)} failed ({errors[0]})")


def _compile(command: list[str], library: Path) -> str | None:
    """Compile to `library` in one step that other processes see whole; the error, if any."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        target = Path(scratch) / library.name
        try:
            done = subprocess.run(
                [*command, "-o", str(target), str(SOURCES / ENTRY)],
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            return (lines or done.stderr.splitlines() or ["unknown error"])[0].strip()
        target.chmod(0o700)
        target.replace(library)
    return None


def _identity(compiler: list[str]) -> str:
    """Everything but the flags that decides what the library contains."""
    parts = [path.name + "\0" + path.read_text() for path in sorted(SOURCES.glob("*.cpp"))]
    try:
        version = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{shlex.join(compiler)} does not run: {error}") from error
    return "\0".join((*parts, shlex.join(compiler), version, *BASE_FLAGS, _cpu_features()))


def _cpu_features() -> str:
    """What the CPU can do; a home folder may be shared by machines of different kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return platform.machine() + "".join(
        next((line for line in lines if line.startswith(name)), "") for name in wanted
    )


def _private_folder() -> Path:
    """The cache folder, or a fresh temporary one where that cannot be written or is not ours."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(folder) and os.access(folder, os.W_OK):
            return folder
    except OSError as error:
        logger.debug("cache folder %s: %s", folder, error)
    logger.warning(
        "cannot keep built kernels in %s; set SPARSEDIFF_CACHE to a folder of yours", folder
    )
    return Path(tempfile.mkdtemp(prefix="sparsediff-"))


def _is_ours(path: Path) -> bool:
    """Whether the path exists, belongs to this user and nobody else may write it."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH
