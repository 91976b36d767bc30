"""Several pipelines, runs and models beside each other; every test asserts which path ran."""

from __future__ import annotations

import threading
from typing import Any

import diffusers
import pytest
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES, wan
from tiny_pipelines.parts import picture

import sparsediff
from sparsediff.kernels.errors import AlreadyEnabledError

WAN, WAN22, LTX = FAMILIES["wan"], FAMILIES["wan22"], FAMILIES["ltx"]


def test_two_pipelines_are_independent(pipe: Any, expected: torch.Tensor) -> None:
    other = wan()
    dense = WAN.run(other)
    pipe.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(other), dense)
    assert torch.equal(WAN.run(pipe), expected)
    other.enable_sparse_attention("window", density=0.3, block_size=8)
    WAN.run(other)
    assert (calls(pipe), calls(other)) == ((18, 6), (24, 0))
    pipe.disable_sparse_attention()
    assert torch.equal(WAN.run(pipe), dense)
    WAN.run(other)
    assert calls(other) == (24, 0)


def test_runs_start_fresh(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    for _ in range(2):
        assert torch.equal(WAN.run(pipe), expected)
        assert calls(pipe) == (18, 6)
    WAN.run(pipe, steps=8)
    assert calls(pipe) == (36, 12)


def test_guidance_branches_do_not_share_masks(pipe: Any) -> None:
    session = pipe.enable_sparse_attention(**OPTIONS)
    seen = set()
    attend = session.attend

    def spy(layer: int, *args: Any, **kwargs: Any) -> Any:
        out = attend(layer, *args, **kwargs)
        seen.add(session.progress.branch)
        return out

    session.attend = spy
    WAN.run(pipe)
    assert seen == {"cond", "uncond"}
    seen.clear()
    WAN.run(pipe, guidance_scale=1.0)
    assert seen == {"cond"}
    assert calls(pipe) == (9, 3)


def test_guidance_in_one_batch() -> None:
    pipe = LTX.build()
    pipe.enable_sparse_attention(**OPTIONS)
    LTX.run(pipe)
    assert calls(pipe) == (6, 2)
    mask = next(iter(pipe.enable_sparse_attention.__self__.transformer._forward_pre_hooks.values()))
    assert all(m.counts.shape[0] == 2 for m in mask.session.masks().values())


def test_both_experts_of_wan22() -> None:
    pipe = WAN22.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8)
    WAN22.run(pipe, steps=6)
    assert len(session.layers) == 6
    used = {row["name"].split(".")[0] for row in session.report().layers}
    assert used == {"transformer", "transformer_2"}
    assert calls(pipe) == (36, 0)


def test_modular_pipeline(pipe: Any) -> None:
    """Blocks and guiders instead of one __call__; the guider names the branches."""
    modular = diffusers.WanBlocks().init_pipeline()
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    modular.update_components(**{name: getattr(pipe, name) for name in parts})
    session = modular.enable_sparse_attention(**OPTIONS)
    call = {k: v for k, v in WAN.call.items() if k not in ("negative_prompt", "guidance_scale")}
    modular(**call, num_inference_steps=4, output="latents")
    assert calls(modular) == (18, 6)
    assert session.layers == [f"transformer.blocks.{i}.attn1" for i in range(3)]
    modular.disable_sparse_attention()
    assert not session.enabled


def test_exception_in_the_middle_of_a_run(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 2:
            raise KeyboardInterrupt
        return tensors

    with pytest.raises(KeyboardInterrupt):
        WAN.run(pipe, callback_on_step_end=stop)
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)


def test_replaced_scheduler(pipe: Any) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )
    WAN.run(pipe)
    assert calls(pipe) == (18, 6)


def test_shared_transformer_follows_the_pipeline_that_runs() -> None:
    """Two LTX pipelines with schedulers of their own around one transformer, enabled by the first."""
    first, second = LTX.build(), LTX.build()
    second.transformer = first.transformer
    first.enable_sparse_attention(**OPTIONS)
    for runs in (second, first, second):
        LTX.run(runs, steps=8)
        report = first.sparse_attention_report()
        assert len(report.steps) == 8
        assert report.dense_calls + report.sparse_calls == 16
        assert report.dense_calls >= 2
        assert report.sparse_calls >= 6


def test_dense_layers_are_counted_in_each_expert() -> None:
    pipe = WAN22.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, dense_layers=1)
    WAN22.run(pipe, steps=6)
    dense = {row["name"] for row in session.report().layers if row["heads"] == []}
    assert dense == {"transformer.blocks.0.attn1", "transformer_2.blocks.0.attn1"}


def test_schedule_without_a_sparse_step_says_so(pipe: Any) -> None:
    pipe.enable_sparse_attention(block_size=8, warmup=0.9)
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert report.sparse_calls == 0
    assert report.fallbacks == {
        "warmup keeps all steps dense (4); take more steps or lower warmup": 1
    }


def test_context_manager_restores_on_error(pipe: Any) -> None:
    dense = WAN.run(pipe)
    with pytest.raises(RuntimeError), sparsediff.sparse_attention(pipe, **OPTIONS) as session:
        WAN.run(pipe)
        assert session.report().sparse_calls == 18
        raise RuntimeError
    assert not session.enabled
    assert torch.equal(WAN.run(pipe), dense)
    assert session.report().sparse_calls == 18


def test_threads_do_not_see_each_other() -> None:
    """A dense and a sparse pipeline at the same time: the mark of one is not the other's."""
    sparse, dense = wan(), wan()
    truth = WAN.run(dense)
    sparse.enable_sparse_attention(**OPTIONS)
    results: dict[str, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda: results.update(dense=WAN.run(dense, steps=4))),
        threading.Thread(target=lambda: results.update(sparse=WAN.run(sparse, steps=4))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.allclose(results["dense"], truth, atol=1e-5)
    assert calls(sparse) == (18, 6)


def test_two_sparse_pipelines_in_two_threads() -> None:
    """Other methods at the same time: each makes what it makes alone."""
    methods = {"adaspa": OPTIONS, "window": OPTIONS | {"density": 0.3}}
    pipes = {name: wan() for name in methods}
    alone, together, count = {}, {}, {}
    for name, pipe in pipes.items():
        pipe.enable_sparse_attention(name, **methods[name])
        alone[name] = WAN.run(pipe)
        count[name] = calls(pipe)

    def run(name: str) -> None:
        for _ in range(3):
            together[name] = WAN.run(pipes[name])

    threads = [threading.Thread(target=run, args=(name,)) for name in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, pipe in pipes.items():
        assert torch.equal(together[name], alone[name])
        assert calls(pipe) == count[name] == (18, 6)


def test_from_pipe_shares_the_transformer(pipe: Any, expected: torch.Tensor) -> None:
    """Enabled on one pipeline, run by the other, which shares scheduler and models."""
    pipe.enable_sparse_attention(**OPTIONS)
    other = diffusers.WanVideoToVideoPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    given = {key: value for key, value in WAN.call.items() if key != "num_frames"}
    for _ in range(2):
        other(
            **given,
            video=[picture(64, 64)] * 9,
            strength=0.5,
            num_inference_steps=8,
            output_type="latent",
        )
        assert calls(pipe) == calls(other) == (18, 6)
        assert [row["dense_calls"] for row in pipe.sparse_attention_report().steps] == [6, 0, 0, 0]
        assert torch.equal(WAN.run(pipe), expected)
    with pytest.raises(AlreadyEnabledError):
        other.enable_sparse_attention()
    other.disable_sparse_attention()
    with pytest.raises(sparsediff.SparseError, match="not enabled"):
        pipe.sparse_attention_report()
