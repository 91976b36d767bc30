"""Sparse attention beside what else people switch on; every test asserts which path ran."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_pipelines import FAMILIES, wan, wan_transformer

import sparsediff

WAN, WAN22, LTX = FAMILIES["wan"], FAMILIES["wan22"], FAMILIES["ltx"]
OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25}


def calls(pipe: Any) -> tuple[int, int]:
    report = sparsediff.sparse_attention_report(pipe)
    assert report.fallbacks == {}
    return report.sparse_calls, report.dense_calls


@pytest.fixture
def pipe() -> Any:
    return wan()


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    """The sparse result with nothing else switched on."""
    pipe = wan()
    pipe.enable_sparse_attention(**OPTIONS)
    return WAN.run(pipe)


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


def test_lora_added_and_removed(pipe: Any, expected: torch.Tensor) -> None:
    from peft import LoraConfig

    pipe.enable_sparse_attention(**OPTIONS)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)
    assert not torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)
    pipe.transformer.delete_adapters("default")
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-6)
    assert calls(pipe) == (18, 6)


def test_group_offload(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)


@pytest.mark.parametrize("offload_first", [True, False])
def test_model_offload(pipe: Any, expected: torch.Tensor, offload_first: bool) -> None:
    """accelerate's hook rewrites forward and is taken off after each run, as model offload does."""
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    if offload_first:
        add_hook_to_module(pipe.transformer, ModelHook())
    pipe.enable_sparse_attention(**OPTIONS)
    if not offload_first:
        add_hook_to_module(pipe.transformer, ModelHook())
    assert torch.equal(WAN.run(pipe), expected)
    remove_hook_from_module(pipe.transformer)
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)


def test_layerwise_casting(pipe: Any) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    assert torch.isfinite(WAN.run(pipe)).all()
    assert calls(pipe) == (18, 6)


def test_first_block_cache_skips_calls(pipe: Any) -> None:
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e9))
    pipe.enable_sparse_attention(**OPTIONS)
    out = WAN.run(pipe)
    sparse, dense = calls(pipe)
    # The first block runs at all 4 steps of both branches, the others only at the first step.
    assert (sparse, dense) == (6, 6)
    assert torch.isfinite(out).all()
    pipe.disable_sparse_attention()
    pipe.transformer.disable_cache()
    assert "forward" not in vars(pipe.transformer)


def test_set_attention_backend_afterwards(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    before = pipe.transformer.blocks[0].attn1.processor._attention_backend
    try:
        pipe.transformer.set_attention_backend("_native_math")
        assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
        assert calls(pipe) == (18, 6)
        pipe.transformer.reset_attention_backend()
        WAN.run(pipe)
        assert calls(pipe) == (18, 6)
        with diffusers.attention_backend("_native_math"):
            WAN.run(pipe)
        assert calls(pipe) == (18, 6)
    finally:
        pipe.transformer.set_attention_backend("native")  # it also sets diffusers' global default
        pipe.transformer.reset_attention_backend()
    assert pipe.transformer.blocks[0].attn1.processor._attention_backend is before


def test_dense_calls_use_the_backend_that_was_set(pipe: Any) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    ran = []
    name = AttentionBackendName("_native_math")
    original = _AttentionBackendRegistry._backends[name]

    def counting(**arguments: Any) -> torch.Tensor:
        ran.append((arguments["query"].shape[1], arguments["key"].shape[1]))
        return original(**arguments)

    _AttentionBackendRegistry._backends[name] = counting
    try:
        pipe.enable_sparse_attention("window", density=0.3, block_size=8, warmup=0.5)
        with diffusers.attention_backend("_native_math"):
            WAN.run(pipe)
        assert calls(pipe) == (12, 12)
        assert Counter(ran) == {(48, 48): 12, (48, 16): 24}, "half of self-, all of cross-attention"
        pipe.disable_sparse_attention()
        assert _AttentionBackendRegistry._backends[name] is counting
    finally:
        _AttentionBackendRegistry._backends[name] = original


def test_fused_projections(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.fuse_qkv_projections()
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-4)
    assert calls(pipe) == (18, 6)


def test_shared_processor(pipe: Any, expected: torch.Tensor) -> None:
    model = pipe.transformer
    shared = model.blocks[0].attn1.processor
    for block in model.blocks:
        block.attn1.processor = shared
    pipe.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(pipe), expected)
    pipe.disable_sparse_attention()
    assert all(block.attn1.processor is shared for block in model.blocks)


def test_copies_are_dense(pipe: Any) -> None:
    dense = WAN.run(pipe)
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    ran = len(session.log.calls)
    twin = copy.deepcopy(pipe.transformer)
    reborn = pickle.loads(pickle.dumps(pipe.transformer.blocks[0].attn1.processor))
    assert type(reborn).__mro__[1] is object
    pipe.disable_sparse_attention()
    pipe.transformer = twin
    assert torch.equal(WAN.run(pipe), dense)
    assert len(session.log.calls) == ran
    own = twin.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    assert own.report().sparse_calls > 0
    assert len(session.log.calls) == ran
    own.disable()
    assert torch.equal(WAN.run(pipe), dense)


def test_saved_files_are_those_of_the_dense_model(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "dense")
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.save_pretrained(tmp_path / "sparse")
    names = sorted(p.relative_to(tmp_path / "dense") for p in (tmp_path / "dense").rglob("*.*"))
    assert names
    for name in names:
        assert (tmp_path / "dense" / name).read_bytes() == (tmp_path / "sparse" / name).read_bytes()


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


def test_replaced_processors_are_noticed(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    pipe.enable_sparse_attention(**OPTIONS)
    for block in pipe.transformer.blocks[:2]:
        block.attn1.set_processor(WanAttnProcessor())
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert report.fallbacks == {"the attention processor was replaced": 16}
    assert (report.sparse_calls, report.dense_calls) == (6, 18)
    assert sum("processor was replaced" in r.message for r in caplog.records) == 1
    pipe.disable_sparse_attention()


def test_processors_past_the_dispatcher_are_noticed(pipe: Any) -> None:
    class Direct:
        """A processor of the user's own that calls torch itself."""

        def __call__(self, attn: Any, hidden_states: Any, *rest: Any, **more: Any) -> Any:
            q, k, v = (
                part(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
                for part in (attn.to_q, attn.to_k, attn.to_v)
            )
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return attn.to_out[0](out.transpose(1, 2).flatten(2))

    for block in pipe.transformer.blocks:
        block.attn1.processor = Direct()
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert (report.sparse_calls, report.dense_calls) == (0, 24)
    assert list(report.fallbacks.values()) == [24]
    assert "Direct computes attention without diffusers' attention dispatch" in report.fallbacks


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


def test_collected_pipeline_does_not_disable_a_new_one(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection may come in the middle of enabling."""
    from sparsediff import dispatch

    old = wan()
    old.enable_sparse_attention(**OPTIONS)
    del old
    wrap = dispatch.wrap

    def wrap_and_collect() -> None:
        wrap()
        gc.collect()

    monkeypatch.setattr(dispatch, "wrap", wrap_and_collect)
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    assert calls(pipe) == (18, 6)


def test_kept_session_does_not_keep_the_model() -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    model = weakref.ref(pipe.transformer)
    del pipe
    gc.collect()
    assert model() is None
    assert session.report().sparse_calls == 18
    session.disable()


def test_exchanged_transformer_can_still_be_disabled(pipe: Any) -> None:
    old = pipe.transformer
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer = wan_transformer()
    pipe.disable_sparse_attention()
    assert not old._forward_pre_hooks


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
    assert "all of the 4 steps are dense steps" in next(iter(report.fallbacks))


@pytest.mark.parametrize("compensate", [False, True])
def test_autocast(pipe: Any, compensate: bool) -> None:
    """The tensors are rounded as autocast does, the sums inside the kernels are not."""
    with torch.autocast("cpu", torch.bfloat16):
        dense = WAN.run(pipe)
        pipe.enable_sparse_attention(density=1.0, block_size=8, warmup=0.0, compensate=compensate)
        sparse = WAN.run(pipe)
    assert calls(pipe) == (24, 0)
    error = (sparse - dense).norm() / dense.norm()
    assert error < 0.02, "four steps of a model computed to 8 bits"


def test_named_backend_that_cannot_run_fails_at_the_first_step(pipe: Any) -> None:
    pipe.transformer.double()
    session = pipe.enable_sparse_attention(**OPTIONS, backend="cpu")
    latents = torch.zeros(1, 16, 3, 8, 8, dtype=torch.float64)
    with (
        pytest.raises(sparsediff.SparseError, match=r"'cpu' cannot run these inputs.*float64"),
        torch.no_grad(),
    ):
        pipe.transformer(
            hidden_states=latents,
            timestep=torch.tensor([900.0]),
            encoder_hidden_states=torch.zeros(1, 16, 32, dtype=torch.float64),
        )
    assert not session.enabled


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


def test_forgotten_pipelines_unwrap_diffusers() -> None:
    """A pipeline that is dropped while enabled leaves diffusers' own functions behind."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = dict(_AttentionBackendRegistry._backends)
    forgotten = wan()
    forgotten.enable_sparse_attention()
    assert dict(_AttentionBackendRegistry._backends) != before
    del forgotten
    gc.collect()
    assert dict(_AttentionBackendRegistry._backends) == before


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, generator=noise),
        "encoder_hidden_states": torch.randn(1, 16, 32, generator=noise),
    }


def test_model_enabled_alone_in_a_pipeline(pipe: Any, expected: torch.Tensor) -> None:
    """The session then knows no scheduler, and follows what the pipeline says and the noise level."""
    pipe.transformer.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    report = pipe.sparse_attention_report()
    assert [row["step"] for row in report.steps] == [0, 1, 2, 3]
    assert 6 <= report.dense_calls <= 12
    assert report.sparse_calls == 24 - report.dense_calls
    ltx = LTX.build()
    ltx.transformer.enable_sparse_attention(**OPTIONS)
    LTX.run(ltx)
    assert len(ltx.sparse_attention_report().steps) == 4
    assert ltx.sparse_attention_report().sparse_calls > 0


@torch.no_grad()
def test_bare_model_called_by_hand() -> None:
    model = wan_transformer()
    dense = model(timestep=torch.tensor([900.0]), **inputs())[0]
    session = model.enable_sparse_attention(density=0.4, block_size=8, warmup=0.0)
    outputs = [
        model(inputs()["hidden_states"], torch.tensor([t]), inputs()["encoder_hidden_states"])[0]
        for t in (900.0, 600.0, 300.0)
    ]
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (9, 0)
    assert [row["step"] for row in report.steps] == [0, 1, 2]
    assert not torch.allclose(outputs[0], dense, atol=1e-4)
    model(timestep=torch.tensor([900.0]), **inputs())
    assert len(session.report().steps) == 1, "the first timestep again starts a new run"
    for t in (100.0, 200.0, 300.0):
        model(timestep=torch.tensor([t]), **inputs())
    assert len(session.report().steps) == 4, "any other new timestep is a new step"


def test_gradients_flow_through_an_eager_model() -> None:
    model = wan_transformer()
    model.enable_sparse_attention(density=1.0, block_size=8, warmup=0.0)
    model(timestep=torch.tensor([900.0]), **inputs())[0].sum().backward()
    sparse = model.blocks[0].attn1.to_q.weight.grad.clone()
    assert model.sparse_attention_report().sparse_calls == 3
    model.disable_sparse_attention()
    model.zero_grad()
    model(timestep=torch.tensor([900.0]), **inputs())[0].sum().backward()
    torch.testing.assert_close(sparse, model.blocks[0].attn1.to_q.weight.grad, atol=1e-4, rtol=1e-3)
