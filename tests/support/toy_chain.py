"""A toy denoiser with attention heads and neurons, some of them of no use, and chains of it."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from fresh_accelerate import forget_accelerate
from torch import Tensor, nn
from torch.nn import functional

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import FlowNoise
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.prune.frozen import frozen
from sparsediff.prune.learning.chain import Chain
from sparsediff.prune.learning.mask_trainer import MaskTrainer
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.structures import Cut, Structure

TOKENS, WIDTH, HEADS, NEURONS = 5, 6, 4, 10
IDLE_HEADS, IDLE_NEURONS = (1, 2), (0, 4, 5, 9)


class ToyDenoiser(nn.Module):
    """One block; what its idle heads and neurons give is multiplied by zeros, large as it may be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * 2, bias=False)
        self.out = nn.Linear(HEADS * 2, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, NEURONS), nn.Linear(NEURONS, WIDTH)
        with torch.no_grad():
            for layer in (self.qkv, self.out, self.up, self.down):
                layer.weight.normal_(std=0.6)
            self.up.bias.abs_()
            self.out.weight.view(WIDTH, HEADS, 2)[:, list(IDLE_HEADS)] = 0
            self.down.weight[:, list(IDLE_NEURONS)] = 0
            self.up.weight[list(IDLE_NEURONS)] *= 3

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, told: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        x = hidden_states + told[:, None] + timestep.view(-1, 1, 1) / 1000
        q, k, v = self.qkv(x).view(len(x), TOKENS, 3, HEADS, 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return (x + self.down(functional.silu(self.up(x))),)


def toy_units() -> list[Structure]:
    """Its heads and its neurons."""
    heads = Structure(
        kind="heads", path="out", units=HEADS, cuts=(Cut(module="out", side="in", width=2),)
    )
    neurons = Structure(
        kind="ffn", path="down", units=NEURONS, cuts=(Cut(module="down", side="in", width=1),)
    )
    return [heads, neurons]


def toy_conditions(count: int = 3) -> list[Conditions]:
    """Conditions with a negative side, of prompts that are numbers."""
    prompts = torch.randn(count, 1, WIDTH, generator=torch.Generator().manual_seed(3))
    return [
        Conditions(
            positive={"told": one},
            negative={"told": torch.zeros(1, WIDTH)},
            batched=frozenset({"/told"}),
        )
        for one in prompts
    ]


def toy_chain(
    *, steps: int = 3, guidance: float = 1.5, tokens: int = TOKENS, every: int = 1
) -> Chain:
    return Chain(
        model=ToyDenoiser().requires_grad_(False),
        inputs=Inputs(
            shape=(tokens, WIDTH),
            noisy_name="hidden_states",
            time_name="timestep",
            time_scale=1.0,
        ),
        levels=FlowNoise(),
        grid=StepGrid(times=tuple(1000.0 * (steps - n) / steps for n in range(steps + 1))),
        guidance=guidance,
        latents_every=every,
    )


def toy_trainer(chain: Chain | None = None, **changes: Any) -> MaskTrainer:
    """A trainer whose gates move quickly, and are noisy from the start."""
    forget_accelerate()
    given: dict[str, Any] = {
        "iterations": 30,
        "batch": 2,
        "accumulation": 1,
        "warmup_iterations": 0,
        "heads_learning_rate": 0.3,
        "ffn_learning_rate": 0.3,
        "damping": 0.0,
        "initial_logit": 2.0,
    }
    settings = LearnSettings(**(given | changes))
    chain = chain or toy_chain()
    with frozen(chain.model):
        return MaskTrainer(chain, toy_units(), toy_conditions(), settings, Accelerator(cpu=True))
