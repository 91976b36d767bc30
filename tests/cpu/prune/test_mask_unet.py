"""MaskUNet: masks of a UNet's decoder that follow timestep and sample."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_pipelines.unet import _unet as tiny_unet
from tiny_pipelines.wan import wan_transformer
from torch import Tensor

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.kernels.errors import AlreadyEnabledError, SparseError, UnsupportedModelError
from sparsediff.prune.denoising_loss import denoising_loss
from sparsediff.prune.mask_unet import (
    DecoderMasks,
    MaskConfig,
    MaskTraining,
    train_masks,
    unet_denoiser,
)
from sparsediff.prune.mask_unet.drawn_mask import drawn_mask
from sparsediff.prune.mask_unet.mask_files import CONFIG, WEIGHTS

SMALL = MaskConfig(hidden=8)


def batch_of(samples: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(samples, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([900, 100])[:samples],
        "encoder_hidden_states": torch.randn(samples, 3, 32, generator=generator),
        "return_dict": False,
    }


def moved(masks: DecoderMasks) -> DecoderMasks:
    """Masks as after a training: some open, some closed, depending on what the UNet sees."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in masks.named_parameters():
            if name.endswith("columns.weight"):
                parameter.normal_(std=0.3)
            if name.endswith("columns.bias"):
                parameter.zero_()
    return masks.eval()


@pytest.mark.parametrize("noise", ["logistic", "gumbel"])
def test_masks_are_open_as_often_as_the_noise_says(noise: Any) -> None:
    """Over n draws the share of a chance p is within 5 standard deviations, once in 2 million not."""
    count, generator = 40_000, torch.Generator().manual_seed(0)
    for logit in (-2.0, -0.5, 0.0, 1.0, 2.65):
        expected = {
            "logistic": 1 / (1 + math.exp(-logit)),
            "gumbel": 1 - math.exp(-math.exp(logit)),
        }[noise]
        drawn = drawn_mask(torch.full((count,), logit), noise, generator=generator)
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert abs(float(drawn.mean()) - expected) < 5 * deviation


def test_gradients_go_straight_through_the_rounding() -> None:
    logits = torch.tensor([-1.0, 0.5, 3.0], requires_grad=True)
    mask = drawn_mask(logits, "none", temperature=2.0)
    assert mask.tolist() == [0.0, 1.0, 1.0]
    (3 * mask).sum().backward()
    soft = torch.sigmoid(logits.detach() / 2)
    assert torch.equal(logits.grad, 3 * (1 - soft) * soft / 2)  # type: ignore[arg-type]


def test_masks_start_open_and_come_off_exactly() -> None:
    unet, batch = tiny_unet(), batch_of()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    plain = unet(**batch)[0]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in unet.modules()]
    masks = DecoderMasks(unet, SMALL).eval()
    assert not any("down" in path for paths in masks.paths.values() for path in paths)
    assert (
        sum(map(len, masks.paths.values())) == 2 * 2 * 2 * 4
    )  # blocks, layers, attentions, q k v o
    with torch.no_grad(), masks.applied(unet):
        # The same products in another order: some 10 sums of at most 64, at 6e-8 each.
        assert torch.allclose(unet(**batch)[0], plain, atol=1e-5)
    with torch.no_grad(), moved(masks).applied(unet):
        assert not torch.allclose(unet(**batch)[0], plain, atol=1e-3)
    assert torch.equal(unet(**batch)[0], plain)
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in unet.modules()]
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_every_sample_has_masks_of_its_own_timestep_and_latents() -> None:
    """A sample in a batch is what it is alone; another timestep or latent opens other weights."""
    unet, batch = tiny_unet(), batch_of()
    masks = moved(DecoderMasks(unet, SMALL))
    block: Any = masks.blocks["0"]
    seen: list[Tensor] = []
    original = block.map
    block.map = lambda *given: seen.append(original(*given)) or seen[-1]
    with torch.no_grad(), masks.applied(unet):
        together = unet(**batch)[0]
        for row in range(2):
            alone = unet(
                **{k: v if k == "return_dict" else v[row : row + 1] for k, v in batch.items()}
            )
            assert torch.allclose(together[row], alone[0][0], atol=1e-5)
        unet(**{**batch, "timestep": torch.tensor([100, 100])})
    path = masks.paths[0][0]
    first, *_, later = ((block.logits(path, one) > 0) for one in seen)
    assert bool((first[0] != first[1]).any()), "latents and timestep differ, masks do not"
    assert bool((first[0] != later[0]).any()), "the timestep differs, masks do not"
    assert bool((first[1] == later[1]).all())


def test_masks_equal_weights_that_are_zero() -> None:
    unet, batch = tiny_unet(), batch_of(1)
    masks = moved(DecoderMasks(unet, SMALL))
    cut = copy.deepcopy(unet)
    for block in masks.blocks.values():
        watch_logits(block, cut)
    with torch.no_grad(), masks.applied(unet):
        masked = unet(**batch)[0]
    closed = [float((layer.weight == 0).float().mean()) for layer in linears(cut, masks)]
    assert all(0.02 < share < 0.98 for share in closed)
    with torch.no_grad():
        assert torch.allclose(cut(**batch)[0], masked, atol=1e-5)


def watch_logits(block: Any, cut: Any) -> None:
    """Zero the weights of another UNet wherever a block's logits close them."""
    logits = block.logits

    def noted(path: str, of: Tensor) -> Tensor:
        found: Tensor = logits(path, of)
        cut.get_submodule(path).weight.mul_(found[0] > 0)
        return found

    block.logits = noted


def linears(unet: Any, masks: DecoderMasks) -> list[Any]:
    return [unet.get_submodule(path) for paths in masks.paths.values() for path in paths]


def gradients_of(start: str, updates: int = 3) -> dict[str, float]:
    """Largest gradient of every parameter of the generators after some updates."""
    unet, batch = tiny_unet(), batch_of()
    masks = DecoderMasks(unet, MaskConfig(hidden=8, start=start))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(masks.parameters(), lr=1.0)
    torch.manual_seed(5)
    for _ in range(updates):
        optimizer.zero_grad()
        with masks.applied(unet):
            (1e3 * unet(**batch)[0].square().mean()).backward()
        optimizer.step()
    return {
        name: float(parameter.grad.abs().max())
        for name, parameter in masks.named_parameters()
        if "generator" in name and parameter.grad is not None
    }


def test_generators_learn_unless_they_start_as_released() -> None:
    """The release multiplies zeros by zeros: neither ever has a gradient."""
    learning = gradients_of("trainable")
    assert len(learning) == 2 * 5
    assert min(learning.values()) > 0
    assert max(gradients_of("release").values()) == 0


def test_gradient_checkpointing_draws_the_same_masks_again() -> None:
    gradients = []
    for checkpointed in (False, True):
        unet, batch = tiny_unet().train(), batch_of()
        if checkpointed:
            unet.enable_gradient_checkpointing()
        torch.manual_seed(0)
        masks = DecoderMasks(unet, MaskConfig(hidden=8, opening=0.5))
        with masks.applied(unet, generator=torch.Generator().manual_seed(4)):
            unet(**batch)[0].square().sum().backward()
        gradients.append([p.grad for p in masks.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]
    assert max(float(g.abs().max()) for g in gradients[0] if g is not None) > 0


def test_training_changes_masks_alone_and_lowers_the_loss() -> None:
    unet = tiny_unet()
    torch.manual_seed(0)
    masks = DecoderMasks(unet, MaskConfig(hidden=8, opening=2.0))
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(4, 4, 8, 8, generator=generator)
    text = torch.randn(4, 3, 32, generator=generator)
    conditions = Conditions.of_batch({"encoder_hidden_states": text})
    denoiser = unet_denoiser(unet, DDIMScheduler())

    def measured() -> float:
        """The loss of the same pictures with noise that training does not draw."""
        noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(9))
        times = torch.tensor([100.0, 300.0, 600.0, 900.0])
        with torch.no_grad(), masks.eval().applied(unet):
            return float(denoising_loss(denoiser, latents, noise, times, conditions).mean())

    start, heard = measured(), list[int]()
    settings = MaskTraining(iterations=12, batch=4, learning_rate=3e-2)
    losses = train_masks(
        masks, denoiser, latents, conditions, settings, tell=lambda n, loss: heard.append(n)
    )
    assert heard == list(range(12)) == list(range(len(losses)))
    # It falls by 3 %; the same masks measured twice differ by nothing, so 1 % is no chance.
    assert measured() < 0.99 * start
    assert not masks.training
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_masks_are_saved_and_loaded_strictly(tmp_path: Path) -> None:
    unet, batch = tiny_unet(), batch_of()
    masks = moved(DecoderMasks(unet, SMALL))
    masks.save_pretrained(tmp_path)
    loaded = DecoderMasks.load(tmp_path, unet)
    assert loaded.config == SMALL
    assert not loaded.training
    with torch.no_grad(), masks.applied(unet):
        expected = unet(**batch)[0]
    with torch.no_grad(), loaded.applied(unet):
        assert torch.equal(unet(**batch)[0], expected)


def config_with(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "holds no decoder masks"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read as decoder masks"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04pickle"),
            "cannot be read as decoder masks",
        ),
        (lambda folder: (folder / CONFIG).write_text("{"), "line 1"),
        (lambda folder: config_with(folder, schema="other/1"), "needs 'sparsediff.mask-unet/1'"),
        (lambda folder: config_with(folder, hiden=3), "Did you mean 'hidden'"),
        (lambda folder: config_with(folder, hidden=True), "hidden = true"),
        (lambda folder: config_with(folder, hidden=16), "masks of another UNet"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, harm: Any, says: str) -> None:
    unet = tiny_unet()
    DecoderMasks(unet, SMALL).save_pretrained(tmp_path)
    harm(tmp_path)
    with pytest.raises(SparseError, match=says):
        DecoderMasks.load(tmp_path, unet)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    unet = tiny_unet()
    masks = DecoderMasks(unet, SMALL)
    with torch.no_grad():
        next(masks.parameters()).fill_(math.nan)
    masks.save_pretrained(tmp_path)
    with pytest.raises(SparseError, match="no finite numbers"):
        DecoderMasks.load(tmp_path, unet)


def test_other_models_and_second_masks_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"sparsediff\.prune\.buckets"):
        DecoderMasks(wan_transformer())
    unet = tiny_unet()
    masks = DecoderMasks(unet, SMALL)
    with masks.applied(unet), pytest.raises(AlreadyEnabledError), masks.applied(unet):
        pass
    unet.fuse_qkv_projections()
    with pytest.raises(UnsupportedModelError, match="unfuse_qkv_projections"):
        DecoderMasks(unet, SMALL)


@pytest.mark.parametrize(
    "changes", [{"factor": 0}, {"noise": "normal"}, {"temperature": 0}, {"start": "closed"}]
)
def test_configurations_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SparseError, match=next(iter(changes))):
        MaskConfig(**changes)
