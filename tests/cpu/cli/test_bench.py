"""`sparsediff bench --kernel` on a tiny shape: rows, exit codes, refusals."""

import dataclasses
import json

import pytest

from sparsediff import bench
from sparsediff.cli import main
from sparsediff.kernels import backends
from sparsediff.kernels.flex import FlexBackend

TINY = ["--kernel", "--shape", "1x2x192x16", "--block-size", "32", "--repeat", "2", "--densities"]


@pytest.fixture(autouse=True)
def _without_flex(monkeypatch):
    monkeypatch.setattr(FlexBackend, "reasons", lambda self, inputs: ["slow to compile"])


def test_rows(capsys):
    assert main(["bench", *TINY, "0.34,1.0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparsediff.bench/1"
    assert (found["shape"], found["dtype"], found["block_size"]) == ("1x2x192x16", "float32", 32)
    rows = {(row["kernel"].split(" (")[0], round(row["density"], 2)): row for row in found["rows"]}
    assert ("dense with LSE", 1.0) in rows
    assert ("gather", 0.33) in rows  # 2 of 6 blocks
    assert ("gather", 1.0) in rows
    assert {name for name, _ in rows} <= {
        "dense with LSE",
        *backends(),
        *(f"block mass, {name}" for name in backends()),
    }
    for row in found["rows"]:
        assert row["match"] is True
        assert row["error"] <= row["limit"]
        assert len(row["seconds"]) == 2
        assert row["ratio"] > 0


def test_table(capsys):
    assert main(["bench", *TINY, "0.5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1x2x192x16 float32, block 32, ")
    assert [line.split()[-1] for line in out.splitlines() if "gather" in line][:1] == ["yes"]


def test_a_wrong_kernel_gets_no_ratio_and_fails(capsys, monkeypatch):
    def wrong(case, densities, backends):
        row = bench.BenchRow(
            kernel="gather", density=0.5, seconds=(1.0,), ratios=(0.1,), error=1e-9, limit=1e-5
        )
        yield row
        yield dataclasses.replace(row, kernel="cpu", error=0.5)

    monkeypatch.setattr(bench, "measure_kernels", wrong)
    assert main(["bench", *TINY, "0.5"]) == 1
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["gather"][-3:] == ["0.100", "1.0e-09", "yes"]
    assert lines["cpu"][-3:] == ["-", "5.0e-01", "NO"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give --kernel"),
        (["--kernel", "--shape", "1x2x192"], "batch x heads x tokens x dim"),
        (["--kernel", "--shape", "0x2x192x16"], "at least 1"),
        ([*TINY, "0.5,some"], "--densities '0.5,some'"),
        ([*TINY, "1.5"], "density 1.5 is not in (0, 1]"),
    ],
)
def test_bad_input(flags, words, capsys):
    assert main(["bench", *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
