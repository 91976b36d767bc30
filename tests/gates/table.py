"""Compile every kernel in every tile and write what the compiler made of it into docs/kernels.md.

python tests/gates/table.py --write docs/kernels.md
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

BEGIN, END = "<!-- tiles: begin -->", "<!-- tiles: end -->"
HEADER = (
    "| kernel | sm | dtype | dim | blocks | variant | tile | warps | stages | registers | spills |"
    " shared KiB | programs per SM | products | KiB copied ahead per turn |"
)
sys.path.insert(0, str(Path(__file__).parent / "support"))


def main() -> None:
    """Write the table, or print it without --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page between whose markers it goes")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="kernel-table-")
    os.environ["TRITON_CACHE_DIR"] = folder
    try:
        text = table(options.processes)
    finally:
        shutil.rmtree(folder)
    if options.write is None:
        print(text)
        return
    page = options.write.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    options.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def table(processes: int) -> str:
    """The table as markdown, with the version of Triton that compiled it."""
    import triton
    from configurations import every_case

    with ProcessPoolExecutor(processes) as pool:
        rows = list(pool.map(row, every_case()))
    head = [f"Compiled by Triton {triton.__version__}.", "", HEADER, "|" + "---|" * 15]
    return "\n".join([*head, *rows])


def row(case: object) -> str:
    """One line of the table."""
    from ahead_of_time import compile_launch
    from configurations import Configuration, launch_of

    if not isinstance(case, Configuration):
        raise TypeError(f"{case!r} is no Configuration.")
    launch = launch_of(case)
    found = compile_launch(launch, case.arch)
    rows, columns = case.block_size
    tile = f"{launch.constants['ROWS']}x{launch.constants.get('COLUMNS', '-')}"
    cells = [
        case.kernel, case.arch, str(case.dtype).removeprefix("torch."), case.dim, f"{rows}x{columns}",
        "general" if case.general else "plain", tile, launch.warps, launch.stages, found.registers,
        found.spills, f"{found.shared / 1024:.1f}", found.programs,
        f"{found.products} {found.matrix}" if found.products else "-",
        f"{found.copied / 1024:.0f}" if found.copied else "-",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
