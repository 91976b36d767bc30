"""`sparsediff fidelity` on the sample model: one prompt, three steps, one density, two selections."""

import functools
import json
from pathlib import Path

import pytest

from sparsediff import fidelity, loading
from sparsediff.cli import main
from sparsediff.fidelity import FidelityRow, measure_fidelity
from sparsediff.search import AdaSpa, Window

TWO = {"window": Window(warmup=0.2), "AdaSpa": AdaSpa(warmup=0.2)}


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\na red circle moving right\n\na blue ring\n")
    return str(path)


@pytest.fixture
def short_sample(sample, tmp_path):
    """The sample model with a recipe for five frames."""
    folder = tmp_path / "short"
    folder.mkdir()
    for part in Path(sample).iterdir():
        (folder / part.name).symlink_to(part)
    recipe = json.loads((folder / "generation.json").read_text())
    recipe["call"]["num_frames"] = 5
    (folder / "generation.json").unlink()
    (folder / "generation.json").write_text(json.dumps(recipe))
    return str(folder)


def test_rows_and_document(short_sample, prompts, tmp_path, capsys, monkeypatch):
    two = functools.partial(measure_fidelity, selections=TWO)
    monkeypatch.setattr(fidelity, "measure_fidelity", two)
    table = tmp_path / "table.md"
    flags = ["--limit", "1", "--densities", "0.3", "--steps", "3", "-o", str(table), "--json"]
    assert main(["fidelity", short_sample, "--prompts", prompts, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.fidelity/1"
    assert (found["prompts"], found["steps"], found["model"]) == (1, 3, short_sample)
    assert [(row["name"], row["density"]) for row in found["rows"]] == [
        ("window", 0.3),
        ("AdaSpa", 0.3),
    ]
    for row in found["rows"]:
        assert 10 < row["psnr"][0] < 60  # neither noise nor the dense video
        assert 0 < row["ssim"][0] < 1
        assert row["realised_density"][0] == pytest.approx(0.3, abs=0.05)
    text = table.read_text()
    assert "| method | density 0.3 |" in text
    assert f"| AdaSpa | {found['rows'][1]['psnr'][0]:.2f} (" in text
    assert "over 1 prompts" in text
    assert "--limit 1 --steps 3" in text


def test_the_table_without_json(sample, prompts, capsys, monkeypatch):
    def made_up(runner_for, prompts, densities, *, planned, progress):
        return [
            FidelityRow(name="window", density=d, psnr=(20.0, 30.0), ssim=(0.5, 0.7))
            for d in densities
        ]

    class Pipe:
        class scheduler:
            timesteps = (1, 0)

    monkeypatch.setattr(fidelity, "measure_fidelity", made_up)
    monkeypatch.setattr(loading, "load_pipeline", lambda *_, **__: Pipe)
    assert main(["fidelity", sample, "--prompts", prompts, "--densities", "0.2,0.5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| method | density 0.2 | density 0.5 |",
        "|---|---|---|",
        "| window | 25.00 (20.0 to 30.0), 0.600 | 25.00 (20.0 to 30.0), 0.600 |",
    ]


def test_identical_videos_are_null_in_json():
    row = FidelityRow(name="w", density=1.0, psnr=(float("inf"), 30.0), ssim=(1.0, 0.9))
    assert json.loads(json.dumps(row.to_dict(), allow_nan=False))["psnr"] == [None, 30.0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--densities", "0.2,some"], "densities='0.2,some'"),
        (["--densities", "0.2,2"], "density=2.0"),
        (["--limit", "0"], "--limit 0"),
        (["--prompts", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["-o", "nowhere/table.md"], "no folder for nowhere/table.md"),
    ],
)
def test_bad_input_is_refused_before_loading(
    sample, prompts, flags, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "load_pipeline", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    assert main(["fidelity", sample, "--prompts", prompts, *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
