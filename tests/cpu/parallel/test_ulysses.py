"""Two processes under diffusers' Ulysses parallelism give what one process gives."""

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")
SUPPORT = Path(__file__).parents[2] / "support"
# Where matrices are cut in two, products are summed in another order. A sum has at most 96 terms, so
# float32 rounds it by at most 96 half-ulps, and a run sends them through 5 steps of 2 layers.
LIMIT = 5 * 2 * 96 * 2**-24
SPARSE = {  # sparse and dense calls of a run: 5 steps, the first one dense unless the case says 0
    "adaspa": (16, 4),
    "adaspa, parallel first": (16, 4),
    "adaspa, two videos": (16, 4),
    "adaspa, means": (16, 4),
    "adaspa, curve": (16, 4),
    "adaspa, compiled": (16, 4),
    "window": (16, 4),
    "random": (16, 4),
    "blade": (20, 0),
    "plan": (16, 4),
    "two experts": (24, 6),
    "flux": (12, 3),
    "flux, window": (15, 0),
    "kontext, window": (15, 0),
    "flux2, window": (15, 0),
    "qwen, window": (20, 0),
}
DENSE = {
    "ring": "ring attention sees one shard of the keys at a time, a block mask needs all of them; use "
    "ulysses_degree",
    "anything": "ulysses_anything gives the processes shards of different length; take a size whose "
    "tokens they divide evenly, and ulysses_anything=False",
    "qwen, padded": "an attention mask under context parallelism",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("ulysses")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
        "SPARSEDIFF_RANKING": "off",
        "HF_HUB_OFFLINE": "1",
    }
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc_per_node", "2", str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["world"] for one in found] == [2, 2]
    return found


def heads(report):
    """Density of every head in the sparse calls of each layer."""
    return [layer["heads"] for layer in report["layers"]]


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_attention_is_that_of_one_process(both, name):
    for one in both:
        case = one[name]
        assert case["apart"] <= LIMIT * case["largest"]
        report = case["together"]
        assert (report["sparse_calls"], report["dense_calls"]) == SPARSE[name]
        assert report["fallbacks"] == {}
        assert report["balance"]["processes"] == 2


@pytest.mark.parametrize("name", SPARSE)
def test_the_report_of_either_process_is_about_all_heads(both, name):
    for one in both:
        alone, report = dict(one[name]["alone"]), dict(one[name]["together"])
        balance = report.pop("balance")
        assert alone.pop("balance") == {}
        if "window" in name:  # one process says once what all heads share
            assert all(len(set(layer)) == 1 for layer in heads(report))
            assert [layer[:1] for layer in heads(report)] == heads(alone)
            assert balance["in_order"] == balance["as_divided"] == 1
            del alone["layers"], report["layers"]
        assert report == alone


def test_budgets_that_differ_by_head_are_those_of_one_process(both):
    for one in both:
        for name in ("adaspa", "flux"):
            assert any(len(set(layer)) > 1 for layer in heads(one[name]["together"]))
        assert one["flux"]["together"]["balance"]["in_order"] > 1.1


def test_a_plan_is_divided_so_that_the_processes_have_as_much_to_do(both):
    for one in both:
        report = one["plan"]["together"]
        layers = heads(report)
        whole = sum(sum(layer) / 2 for layer in layers)
        in_order = sum(max(layer[0] + layer[1], layer[2] + layer[3]) for layer in layers) / whole
        pairs = list(combinations(range(4), 2))
        best = [
            min(max(sum(x[h] for h in p), sum(x) - sum(x[h] for h in p)) for p in pairs)
            for x in layers
        ]
        balance = report["balance"]
        assert balance["in_order"] == pytest.approx(in_order, abs=1e-5)
        assert balance["as_divided"] == pytest.approx(sum(best) / whole, abs=1e-5)
        assert balance["as_divided"] < 1.2
        assert balance["in_order"] > 1.5
        said = f"the busiest computes {balance['as_divided']:.3f} times the mean"
        assert said in one["plan"]["text"]
        assert f"{balance['in_order']:.3f} with the heads in order" in one["plan"]["text"]


@pytest.mark.parametrize("name", ["no session", "dense as planned", *DENSE])
def test_dense_runs_are_those_of_one_process(both, name):
    for one in both:
        assert one[name]["apart"] <= LIMIT * one[name]["largest"]


def test_dense_steps_of_a_method_are_no_fallbacks(both):
    for one in both:
        report = one["dense as planned"]["together"]
        assert (report["sparse_calls"], report["dense_calls"]) == (0, 20)
        assert report["fallbacks"] == report["balance"] == {}


@pytest.mark.parametrize("name", DENSE)
def test_what_cannot_run_sparse_says_why(both, name):
    for one in both:
        report = one[name]["together"]
        assert report["sparse_calls"] == 0
        assert report["fallbacks"] == {DENSE[name]: 20}


def test_heads_that_cannot_be_divided_are_an_error_that_says_so(both):
    for one in both:
        said = one["three heads"]["said"]
        assert said.startswith("3 attention heads cannot be divided among 2 processes")
        assert "divisor of 3" in said


def test_gradients_come_back_through_the_exchange(both):
    for one in both:
        found = one["gradients"]
        assert found["sparse_calls"] == 2
        assert found["largest"] > 0
        assert found["apart"] <= LIMIT * found["largest"]
