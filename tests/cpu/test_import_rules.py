"""The arrows of docs/architecture.md: kernels <- search <- sparsediff <- ui, and optional packages."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("kernels", "search", "sparsediff", "ui")
MAY_IMPORT = {
    "kernels": {"kernels"},
    "search": {"kernels", "search"},
    "sparsediff": {"kernels", "search", "sparsediff"},
    "ui": {"kernels", "search", "sparsediff", "ui"},
}
DOORS = {"sparsediff/cli/ui.py": "ui"}  # the command that opens the room above
HOME_OF = {  # optional or heavy packages and the only folders that may import them
    "triton": ("kernels/triton",),
    "gradio": ("ui",),
    "diffusers": ("sparsediff",),
    "transformers": ("sparsediff",),
    "accelerate": ("sparsediff",),
}


def sources() -> list[Path]:
    """Every source file once, not through the links inside sparsediff/."""
    return [
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if not any(parent.is_symlink() for parent in path.parents)
    ]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "sparsediff"


def test_rooms_import_downwards_only() -> None:
    checked = 0
    for path in sources():
        room = path.relative_to(ROOT).parts[0]
        for name in imported(path):
            if name.split(".")[0] == "sparsediff":
                checked += 1
                allowed = {*MAY_IMPORT[room], DOORS.get(path.relative_to(ROOT).as_posix())}
                assert room_of(name) in allowed, f"{path} imports {name}"
    assert checked > 100


def test_optional_packages_stay_at_home() -> None:
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        for name in imported(path):
            homes = HOME_OF.get(name.split(".")[0])
            assert homes is None or place.startswith(homes), f"{place} imports {name}"


def test_no_backend_imports_the_reference() -> None:
    """An optimised kernel that calls the specification would be tested against itself."""
    for path in (ROOT / "kernels").rglob("*.py"):
        allowed = {
            "registry.py",
            "dense.py",
            "reference.py",
            "library.py",  # checks itself
            "trial.py",  # checks the others
        }
        if path.name not in allowed:
            assert not any("kernels.reference" in name for name in imported(path)), path


def test_every_package_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            if not any(parent.is_symlink() for parent in init.parents):
                name = init.parent.relative_to(ROOT).as_posix().replace("/", ".")
                found.add(name if room == "sparsediff" else f"sparsediff.{name}")
    assert found == set(settings["packages"])


def test_links_point_inside() -> None:
    for room in ("kernels", "search", "ui"):
        link = ROOT / "sparsediff" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room


def fresh(code: str) -> str:
    """Output of code in a new interpreter, from a folder that is not the checkout."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick_and_silent() -> None:
    code = """
import sys, time
started = time.process_time()
import sparsediff
seconds = time.process_time() - started
heavy = sorted({"torch", "diffusers", "transformers", "triton", "gradio"} & set(sys.modules))
print(heavy, seconds < 0.3)
"""
    assert fresh(code) == "[] True\n"


def test_kernels_need_neither_diffusers_nor_triton() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"diffusers", "transformers", "triton", "gradio", "xformers"}:
            raise ImportError(f"refused {name}")
sys.meta_path.insert(0, Refuse())
import torch
import sparsediff.search
from sparsediff.kernels import BlockMask, block_sparse_attention
q = torch.randn(1, 40, 2, 8)
mask = BlockMask.full(block_size=16, q_len=40, kv_len=40)
out = block_sparse_attention(q, q, q, mask, backend="reference")
print(torch.isfinite(out).all().item())
"""
    assert fresh(code) == "True\n"


@pytest.mark.parametrize("first", ["sparsediff", "diffusers"])
def test_methods_arrive_whatever_is_imported_first(first: str) -> None:
    code = f"""
import {first}
import sparsediff
from diffusers import DiffusionPipeline, ModelMixin, ModularPipeline
for cls in (DiffusionPipeline, ModelMixin, ModularPipeline):
    print(cls.enable_sparse_attention.__name__, cls.disable_sparse_attention.__name__,
          cls.sparse_attention_report.__name__)
"""
    assert len(fresh(code).splitlines()) == 3


def test_methods_never_override_upstream() -> None:
    code = """
import diffusers.models.modeling_utils as home
home.ModelMixin.enable_sparse_attention = lambda self: "upstream"
import sparsediff
from diffusers import ModelMixin
print(ModelMixin.enable_sparse_attention(None), hasattr(ModelMixin, "disable_sparse_attention"))
"""
    assert fresh(code) == "upstream True\n"


@pytest.mark.parametrize("installed", [True, False])
def test_our_kernels_do_not_hide_hugging_faces(tmp_path: Path, installed: bool) -> None:
    """In a Python started in the checkout, `import kernels` finds our folder first."""
    if installed:
        (tmp_path / "kernels").mkdir()
        (tmp_path / "kernels" / "__init__.py").write_text("def get_kernel(): return 'theirs'")
    code = f"""
import sys
sys.path.append({str(tmp_path)!r})
from transformers import CLIPTextModel
import kernels
print(getattr(kernels, "get_kernel", lambda: None)())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("theirs" if installed else "None")


def test_public_names() -> None:
    code = """
import sparsediff
print(sorted(sparsediff.__all__) == sparsediff.__all__)
print(all(hasattr(sparsediff, name) for name in sparsediff.__all__))
print(set(sparsediff.__all__) <= set(dir(sparsediff)))
"""
    assert fresh(code) == "True\n" * 3
