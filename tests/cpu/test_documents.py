"""Documents stay true: README's code runs, its commands and tables match the code, links resolve."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny_pipelines import FAMILIES

from sparsediff import supported_models
from sparsediff.cli import main, models, parser
from sparsediff.search import AdaSpa

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_readme_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python blocks as one program; the blocks after the first use its pipeline."""
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in blocks("python"):
        shorter = re.sub(r"num_inference_steps=\d+", "num_inference_steps=4", block)
        exec(shorter, names)
    session = names["session"]
    assert session.report().sparse_calls > 0  # type: ignore[attr-defined]
    assert not session.enabled  # type: ignore[attr-defined]


@pytest.mark.slow
def test_plans_python_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in blocks("python", (ROOT / "docs/plans.md").read_text()):
        shorter = re.sub(r"num_inference_steps=\d+", "num_inference_steps=4", block)
        exec(shorter.replace("runs/my-plan", str(tmp_path)), names)
    assert (tmp_path / "plan.json").is_file()


@pytest.mark.slow
def test_pruning_python_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All Python blocks as one program, on what the page's first command makes."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/pruning.md").read_text().replace("runs/", f"{tmp_path}/")
    first = blocks("bash", page)[0].splitlines()[0]
    assert main([*shlex.split(first)[1:], "--samples", "0", "--device", "cpu"]) == 0
    names: dict[str, object] = {}
    for block in blocks("python", page):
        exec(block, names)
    assert names["image"].size == (64, 64)  # type: ignore[attr-defined]
    assert (tmp_path / "pruned-by-hand" / "unet" / "pruning_masks.safetensors").is_file()


@pytest.mark.slow
def test_distillation_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample student is loaded, runs sparse, and leaves the pipeline as it was."""
    monkeypatch.chdir(ROOT)
    block = blocks("python", (ROOT / "docs/distillation.md").read_text())[0]
    whole = block.index("sparsediff.unload_student")
    names: dict[str, object] = {}
    exec(block[:whole].replace("num_frames=17", "num_frames=5"), names)
    pipe = names["pipe"]
    report = pipe.sparse_attention_report()  # type: ignore[attr-defined]
    assert report.sparse_calls > 0
    assert not report.fallbacks
    assert report.density < 1
    exec(block[whole:], names)
    assert pipe.scheduler.config.num_train_timesteps == 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path", ["README.md", "docs/distillation.md", "docs/plans.md", "docs/pruning.md"]
)
def test_commands_parse(path: str) -> None:
    text = (ROOT / path).read_text().replace("\\\n", " ")
    lines = [line for block in blocks("bash", text) for line in block.splitlines() if line]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    commands = 0
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in targets
        else:
            assert words[0] == "sparsediff"
            parser().parse_args(words[1:])
        commands += 1
    assert commands >= 2


def test_support_matrix_is_the_facts() -> None:
    shown = README.partition("<!-- sparsediff models --markdown -->\n")[2].partition("\n\n")[0]
    assert shown == models.matrix()
    assert all(f"`{name}`" in shown for name in supported_models())


def test_models_page_covers_every_family() -> None:
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " | " in line][1:]
    assert [row[0] for row in rows] == list(FAMILIES)
    classes = {name.strip("`") for row in rows for name in row[2].split(", ")}
    assert classes == set(supported_models())
    alone = {name for name, family in FAMILIES.items() if family.alone}
    assert {row[0] for row in rows if row[7] == "none"} == alone
    assert all(cell.startswith(("yes", "none")) for row in rows for cell in row[4:])


def test_option_defaults() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| .+ \|$", README, flags=re.MULTILINE)
    found = {name: eval(default) for name, default in rows}
    config = AdaSpa()
    assert len(found) >= 6
    assert found == {name: getattr(config, name) for name in found}


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/distillation.md",
        "docs/models.md",
        "docs/parallel.md",
        "docs/plans.md",
        "docs/pruning.md",
        "samples/README.md",
    ],
)
def test_links_resolve(path: str) -> None:
    text = (ROOT / path).read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)|src=\"([^\"]+)\"", text)
    for target in (a or b for a, b in targets):
        assert (ROOT / path).parent.joinpath(target).exists(), target


def test_architecture_names_every_file() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for room in ("kernels", "search", "sparsediff"):
        for file in (ROOT / room).glob("*.py"):
            assert file.name == "__init__.py" or file.name in text, f"{room}/{file.name}"
