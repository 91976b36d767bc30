"""Learning masks for a real pipeline: its own chain, killed and resumed, shared by two processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_learning import CALL, PROMPTS, killed_in_the_fourth, learning_of, learnt
from tiny_pipelines import FAMILIES, wan
from training_processes import in_processes

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.learning.chain import chain_of
from sparsediff.prune.learning.learning_folder import check_model
from sparsediff.prune.learning.mask_trainer import MaskTrainer
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove

FLOAT32 = 2.0**-23


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_chain_is_the_pipelines_run(guidance: float) -> None:
    """Euler on flow matching, guidance and all; the pipeline keeps its scheduler."""
    pipe = wan(layers=2)
    scheduler = pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe.set_progress_bar_config(disable=True)
    call = {**CALL, "guidance_scale": guidance}
    chain, conditions = chain_of(pipe, pipe.transformer, PROMPTS[:1], call=call, steps=3)
    assert pipe.scheduler is scheduler
    assert (conditions[0].negative is None) == (guidance == 1.0)
    x = torch.randn(1, *chain.inputs.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = chain.latents(x, conditions[0])
        wanted = pipe(
            prompt=PROMPTS[0],
            latents=x,
            output_type="latent",
            num_inference_steps=3,
            **call,
        ).frames
    assert found.shape == wanted.shape
    # Three steps of some float32 operations each, on values that guidance makes larger.
    limit = 3 * 64 * FLOAT32 * guidance * float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= limit
    assert float((found - x).abs().max()) > 100 * limit


def test_a_table_of_noise_levels_is_walked_in_any_number_of_steps() -> None:
    family = FAMILIES["sdxl"]  # whose own scheduler scales what the model sees
    pipe = family.build()
    pipe.set_progress_bar_config(disable=True)
    scheduler = pipe.scheduler
    call = {**family.call, "height": 64, "width": 64}
    call.pop("prompt")
    chain, conditions = chain_of(pipe, pipe.unet, PROMPTS[:1], call=call, steps=3)
    assert pipe.scheduler is scheduler
    assert chain.grid.times == (1000.0, 667.0, 333.0, 0.0)
    x = torch.randn(1, *chain.inputs.shape)
    with torch.no_grad():
        assert chain.latents(x, conditions[0]).isfinite().all()


def test_computing_blocks_again_too_changes_nothing(tmp_path: Path) -> None:
    """diffusers' own checkpointing inside the chain's: gates must be at work there as well."""
    words: dict[str, Any] = {"iterations": 1, "warmup_iterations": 0, "checkpoint_every": 0}
    plain = learning_of(tmp_path / "plain", **words)
    wanted = plain.run().values
    twice = learning_of(tmp_path / "twice", gradient_checkpointing=True, **words)
    model: Any = twice.model
    found = twice.run().values
    assert not model.is_gradient_checkpointing
    assert all(value.requires_grad for value in model.parameters())
    moved = [float((value - 0.0).abs().max()) for value in wanted.values()]
    assert min(moved) > 0.05
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_killed_it_goes_on_the_same(tmp_path: Path) -> None:
    assert in_processes(learnt, tmp_path, tmp_path / "whole") == [0]
    begun, _, wanted = torch.load(tmp_path / "0.pt")
    assert begun == 0
    assert in_processes(killed_in_the_fourth, tmp_path / "out") == [-signal.SIGKILL]
    assert in_processes(learnt, tmp_path, tmp_path / "out") == [0]
    done, _, found = torch.load(tmp_path / "0.pt")
    assert done == 2
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    logs = [_log(tmp_path / name) for name in ("whole", "out")]
    for one, other in zip(*logs, strict=True):
        del one["seconds"], other["seconds"]
        assert one == other
    assert [line["iteration"] for line in logs[0]] == [1, 2, 3, 4]
    assert {"distance", "penalty", "heads_density", "ffn_density", "norm", "rate"} < {*logs[0][0]}


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Plain gradient descent would be exact; AdamW's first update is the rate times the sign."""
    words: dict[str, Any] = {"iterations": 1, "warmup_iterations": 0, "checkpoint_every": 0}
    assert in_processes(learnt, tmp_path, tmp_path / "one", batch=2, **words) == [0]
    _, alone, wanted = torch.load(tmp_path / "0.pt")
    assert in_processes(learnt, tmp_path, tmp_path / "two", count=2, batch=1, **words) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert (alone, first[1], second[1]) == (1, 2, 2)
    moved, agreed = 0, 0
    for key, value in wanted.items():
        assert torch.equal(first[2][key], second[2][key])
        moved += value.numel()
        agreed += int((first[2][key].sign() == value.sign()).sum())
    # A gradient that is all rounding may have either sign: few are.
    assert agreed >= 0.98 * moved
    figures = [_log(tmp_path / name)[0] for name in ("one", "two")]
    for name in ("distance", "norm"):  # sums over samples in another order, float32
        assert figures[1][name] == pytest.approx(figures[0][name], rel=1e-4)


def test_a_nan_names_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = learning_of(tmp_path)
    learn = MaskTrainer._learn

    def broken(self: MaskTrainer, *args: Any, **words: Any) -> Any:
        return learn(self, *args, **words) * (torch.nan if self.iteration == 2 else 1.0)

    monkeypatch.setattr(MaskTrainer, "_learn", broken)
    with pytest.raises(
        SparseError, match=r"nan at iteration 2.*iteration-000002.*with --resume and"
    ):
        learning.run()
    with pytest.raises(SparseError, match=r"holds a training already\. Go on with it by --resume"):
        learning_of(tmp_path)
    with pytest.raises(SparseError, match=r"steps was 2 .* is 3 now"):
        learning_of(tmp_path, resume="latest", steps=3)


def test_fewer_iterations_than_are_done_are_refused(tmp_path: Path) -> None:
    words: dict[str, Any] = {"warmup_iterations": 0, "checkpoint_every": 1}
    learning_of(tmp_path, iterations=2, **words).run()
    with pytest.raises(SparseError, match=r"iterations=1, and 2 are done .*earlier checkpoint"):
        learning_of(tmp_path, resume="latest", iterations=1, **words)
    found = learning_of(tmp_path, resume="iteration-000001", iterations=1, **words)
    assert found.trainer.iteration == 1


def test_of_two_that_begin_in_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    words: dict[str, Any] = {"iterations": 1, "checkpoint_every": 0}
    second = learning_of(tmp_path, seed=3, **words)
    learning_of(tmp_path, **words).run()
    with pytest.raises(SparseError, match="holds a training already"):
        second.run()
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0
    assert len(_log(tmp_path)) == 1


def test_another_models_learning_is_not_gone_on_with(tmp_path: Path) -> None:
    words: dict[str, Any] = {"iterations": 1, "warmup_iterations": 0}
    learning_of(tmp_path, **words).run()
    half = wan(layers=2).transformer.to(torch.bfloat16)
    check_model(tmp_path, half)  # the same weights, as another --dtype loads them
    with torch.no_grad():
        half.blocks[1].ffn.net[2].weight.mul_(1.1)
    with pytest.raises(SparseError, match=r"learnt for another model than this WanTransformer3DM"):
        check_model(tmp_path, half)
    empty = remove(half, Masks(kept={"ffn/blocks.0.ffn": torch.zeros(32, dtype=torch.bool)}))
    with pytest.raises(SparseError, match="or choose another folder"):
        check_model(tmp_path, empty)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(SparseError, match=r"model\.json could not be read as JSON"):
        learning_of(tmp_path, resume="latest", **words)


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
