"""What the files of a plan are called, how large they may be, and which files are never opened."""

from __future__ import annotations

from pathlib import PurePath

from sparsediff.kernels.errors import PlanError

PLAN, TABLES, CARD = "plan.json", "tables.safetensors", "README.md"

# The plan of a large model, 40 layers x 40 heads x 4 parts of the run, takes half a megabyte.
MOST_BYTES = {PLAN: 16 * 2**20, TABLES: 64 * 2**20}

_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")
_ZIP = b"PK"
_PROTOCOLS = range(2, 6)


def refuse_pickles(name: str, start: bytes = b"") -> None:
    """Raise PlanError for a pickle or zip file, by its name or its first bytes; nothing is opened."""
    suffix = PurePath(name).suffix.lower()
    named = suffix in _PICKLED
    zipped = start[:2] == _ZIP and start[2:3] < b"\x09"
    # A pickle starts with its protocol and an opcode, which is never 0; a safetensors file may start
    # with the same two bytes, but its size's third byte is then 0.
    pickled = start[:1] == b"\x80" and len(start) > 2 and start[1] in _PROTOCOLS and start[2] > 0
    if named or zipped or pickled:
        kind = f"a {suffix} file" if named else "a zip file" if zipped else "a pickle"
        raise PlanError(
            f"{name} is {kind}: pickle and zip files are not read, because a pickle can run any code. "
            f"A plan is a folder with {PLAN}; write one with PatternPlan.save_pretrained."
        )


def check_size(name: str, size: int) -> None:
    """Raise PlanError for a file that is larger than any plan."""
    most = MOST_BYTES[name]
    if size > most:
        raise PlanError(f"{name} has {size} bytes; a plan's may have {most}, so it is not read.")


def check_tables_name(value: object) -> None:
    """Raise PlanError unless the plan names the one file beside it that tables are read from."""
    if value != TABLES:
        found = repr(value)[:60]
        if isinstance(value, str):
            refuse_pickles(value[-60:])
        raise PlanError(
            f"{PLAN}: tables = {found}: needs {TABLES!r}, the name of a file beside {PLAN}, or null."
        )
