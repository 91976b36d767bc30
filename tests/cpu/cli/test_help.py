"""The command starts at once: help and version import nothing heavy."""

import resource
import subprocess
import sys

from sparsediff import __version__
from sparsediff.cli import generate_arguments
from sparsediff.generation import DTYPES
from sparsediff.search import METHODS

_LOADED = """
import sys
from sparsediff.cli import main
try:
    main([{argument!r}])
except SystemExit as end:
    print(end.code, sorted({{"torch", "numpy", "diffusers", "transformers", "PIL"}} & set(sys.modules)))
"""


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy():
    text = _run(_LOADED.format(argument="--help")).stdout
    assert "generate" in text
    assert "doctor" in text
    assert text.splitlines()[-1] == "0 []"


def test_help_of_a_command_imports_nothing_heavy():
    code = _LOADED.replace("[{argument!r}]", "['generate', '--help']").replace("{{", "{")
    text = _run(code.replace("}}", "}")).stdout
    assert "--density" in text
    assert text.splitlines()[-1] == "0 []"


def test_version():
    assert _run(_LOADED.format(argument="--version")).stdout.splitlines() == [
        f"sparsediff {__version__}",
        "0 []",
    ]


def test_help_is_quick():
    """In processor time: the wall clock also counts what else a busy machine does."""

    def seconds(*arguments):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds("-m", "sparsediff.cli", "--help") for _ in range(5)) < 0.3


def test_names_written_out_are_those_of_the_registries():
    assert tuple(METHODS) == generate_arguments.METHOD_NAMES
    assert generate_arguments.DTYPE_NAMES == DTYPES
