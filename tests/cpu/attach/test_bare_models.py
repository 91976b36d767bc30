"""Models without a pipeline."""

from __future__ import annotations

from typing import Any

import torch
from counted import OPTIONS
from tiny_pipelines import FAMILIES, wan_transformer

WAN, LTX = FAMILIES["wan"], FAMILIES["ltx"]


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


def test_timesteps_that_rise_are_followed() -> None:
    """Lumina is told what share of the noise is gone: 0, 1/4, 1/2 and 3/4 of four steps."""
    lumina = FAMILIES["lumina2"]
    pipe = lumina.build()
    session = pipe.transformer.enable_sparse_attention(**(OPTIONS | {"warmup": 0.3}))
    for _ in range(2):
        lumina.run(pipe)
        steps = session.report().steps
        per_step = lumina.calls(1)
        assert [row["dense_calls"] for row in steps] == [per_step, per_step, 0, 0]
        assert [row["sparse_calls"] for row in steps] == [0, 0, per_step, per_step]


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
