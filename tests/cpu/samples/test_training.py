"""The training scripts: an interrupted run goes on exactly, and leaves nothing half-written."""

import json
import os
import signal
from pathlib import Path

import checkpoint
import pytest
import torch
from attention import PickedFrames, set_training_attention
from captions import build_text_encoder, build_tokenizer, encode
from clips import ClipSource
from diffusers import WanTransformer3DModel
from loop import STOPPED, train
from muon import Optimizer, orthogonal
from recipe import CONTINUE, KINDS, WHOLE, Kind, Phase, Recipe
from train_transformer import TransformerTraining, noise_levels, picked_frames
from train_vae import VaeTraining, build_vae

VAE = Path(__file__).resolve().parents[3] / "samples/models/shapes-wan/vae"
TINY = {
    "image": Kind(frames=1, batch=2, shift=1.5),
    "half": Kind(frames=3, batch=1, shift=2.0, half=True, picked=2),
}
RECIPE = Recipe(
    phases=(Phase(steps=2, mix={"image": 1.0}), Phase(steps=3, mix={"half": 0.5, "image": 0.5})),
    warm_up=2,
)


@pytest.fixture(scope="module")
def source() -> ClipSource:
    return ClipSource(VAE, "cpu")


@pytest.fixture
def tiny_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in TINY.items():
        monkeypatch.setitem(KINDS, name, kind)


def tiny_transformer(source: ClipSource) -> TransformerTraining:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=6,
        out_channels=6, text_dim=64, freq_dim=32, ffn_dim=32, num_layers=2,
    )  # fmt: skip
    return TransformerTraining(model, source, RECIPE, seed=5, compiled=False)


def assert_same(left: dict, right: dict) -> None:
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.usefixtures("tiny_kinds")
def test_a_resumed_transformer_run_equals_an_uninterrupted_one(
    source: ClipSource, tmp_path: Path
) -> None:
    whole, first, second = (tiny_transformer(source) for _ in range(3))
    start = {name: t.clone() for name, t in whole.tensors().items()}
    options = {"save_every": 1e9, "info": {"seed": 5}}
    assert train(whole, tmp_path / "a", resume=False, **options) == 0
    assert train(first, tmp_path / "b", resume=False, stop_after=3, **options) == STOPPED
    assert checkpoint.info_of(tmp_path / "b")["step"] == 3
    assert train(second, tmp_path / "b", resume=True, **options) == 0
    assert_same(whole.tensors(), second.tensors())
    assert any(not torch.equal(start[name], whole.tensors()[name]) for name in start)
    # The exported weights are the averaged ones, as diffusers reads them.
    folder = checkpoint.newest(tmp_path / "b") / "transformer"
    exported = WanTransformer3DModel.from_pretrained(folder)
    assert_same(dict(exported.named_parameters()), dict(whole.average.named_parameters()))


def test_a_resumed_autoencoder_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"size": 16, "radius": (4.0, 6.0)}
    monkeypatch.setattr("train_vae.IMAGES", (2, 1, small))
    monkeypatch.setattr("train_vae.CLIPS", ((1, 5, small),))
    monkeypatch.setattr("train_vae.measure", lambda vae, clips: (0.0, [0.0] * 6, [1.0] * 6))
    whole, first, second = (
        VaeTraining(build_vae(0), steps=4, seed=1, device="cpu") for _ in range(3)
    )
    options = {"save_every": 1e9, "info": {}}
    assert train(whole, tmp_path / "a", resume=False, **options) == 0
    assert train(first, tmp_path / "b", resume=False, stop_after=2, **options) == STOPPED
    assert train(second, tmp_path / "b", resume=True, **options) == 0
    assert_same(whole.tensors(), second.tensors())


class Counter:
    """A training of one number; interrupts itself at a step."""

    steps = 5

    def __init__(self, interrupt_at: int = -1) -> None:
        self.value, self.interrupt_at = torch.zeros(1), interrupt_at

    def train_step(self, step: int) -> dict[str, float]:
        self.value += step + 1
        if step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return {"value": float(self.value)}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"value": self.value}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        self.value = tensors["value"]

    def export(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps({"value": float(self.value)}))


def test_ctrl_c_saves_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    options = {"save_every": 1e9, "info": {"seed": 0}}
    status = train(Counter(interrupt_at=1), tmp_path, resume=False, **options)
    assert status == STOPPED
    assert signal.getsignal(signal.SIGINT) is before
    assert f"--resume {tmp_path}" in capsys.readouterr().out
    again = Counter()
    assert train(again, tmp_path, resume=True, **options) == 0
    assert float(again.value) == 15
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000005"]
    suffixes = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_an_interrupted_save_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"x": torch.ones(1)}, {}, lambda folder: None)

    def broken(folder: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path, 2, {"x": torch.zeros(1)}, {}, broken)
    assert checkpoint.newest(tmp_path).name == "step-00000001"
    assert torch.equal(checkpoint.tensors_of(tmp_path)["x"], torch.ones(1))


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Found no checkpoint"):
        checkpoint.newest(tmp_path)


def test_training_attention_computes_what_diffusers_computes(source: ClipSource) -> None:
    folder = VAE.parent / "transformer"
    model = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, 6, 3, 16, 16), generator=generator)
    tokenizer, encoder = build_tokenizer(), build_text_encoder()
    text, counts = encode(tokenizer, encoder, ["a red ring bouncing", ""])
    padded = torch.nn.functional.pad(text, (0, 0, 0, 48 - text.shape[1]))
    times = torch.tensor([300.0, 700.0])
    with torch.no_grad():
        wanted = model(latents, times, padded, return_dict=False)[0]
        set_training_attention(model).pad_to(counts, 48)
        found = model(latents, times, text, return_dict=False)[0]
        set_training_attention(model).pad_to(counts, 512)
        other = model(latents, times, text, return_dict=False)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert (other - wanted).abs().max() > 1e-3


def test_muon_agrees_with_torch() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(2)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    named = [(str(i), p) for i, p in enumerate(ours)]
    mine = Optimizer(named, [("b", torch.nn.Parameter(torch.zeros(1)))],
                     muon_rate=0.01, adamw_rate=0.0, decay=0.1)  # fmt: skip
    muon = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn(6, 4)
            right.grad = left.grad.clone()
        mine.step(1.0)
        muon.step()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=2e-2, atol=2e-4)


def test_orthogonal_updates_have_singular_values_near_one() -> None:
    matrices = torch.randn((3, 8, 20), generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_noise_levels_are_spread_and_shifted() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, shifted = (noise_levels(1000, shift, generator) for shift in (1.0, 3.0))
    assert 0 < shifted.min() < shifted.max() < 1
    assert abs(float(plain.median()) - 0.5) < 0.02
    assert abs(float(shifted.median()) - 0.75) < 0.02


def test_recipes_end_with_full_clips_and_falling_rates() -> None:
    for recipe in (CONTINUE, WHOLE):
        assert recipe.mix_at(recipe.steps - 1)["full"] >= 0.5
        assert recipe.scale_at(0) < 0.1
        assert recipe.scale_at(recipe.steps // 3) == 1.0
        assert recipe.scale_at(recipe.steps) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("steps", "mix"), [(0, {"full": 1.0}), (1, {"full": 0.5}), (1, {"no": 1.0})]
)
def test_wrong_phases_are_refused(steps: int, mix: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Found"):
        Phase(steps=steps, mix=mix)


def test_an_even_number_of_latent_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        Kind(frames=2, batch=1, shift=1.0)


def test_picked_frames_keep_their_places_in_time(source: ClipSource) -> None:
    model = tiny_transformer(source).average
    latents = torch.randn((1, 6, 9, 2, 3))
    whole = model.rope(latents)
    rope = PickedFrames(model.rope)
    some = rope.pick(latents, torch.tensor([0, 4, 8]))
    assert torch.equal(some, latents[:, :, [0, 4, 8]])
    for table, full in zip(rope(some), whole, strict=True):
        frames = full.unflatten(1, (9, 6))
        assert torch.equal(table, frames[:, [0, 4, 8]].flatten(1, 2))
    # Counted from zero, three frames in a row would get other tables.
    assert not torch.equal(rope(some)[0], model.rope(some)[0])


def test_picked_frames_hold_the_first_and_ascend() -> None:
    generator = torch.Generator().manual_seed(0)
    kind = Kind(frames=9, batch=1, shift=1.0, picked=3)
    draws = [picked_frames(kind, generator).tolist() for _ in range(50)]
    assert all(draw[0] == 0 and len(draw) == 3 and draw == sorted(set(draw)) for draw in draws)
    assert {frame for draw in draws for frame in draw} == set(range(9))
    whole = Kind(frames=9, batch=1, shift=1.0)
    assert picked_frames(whole, generator).tolist() == list(range(9))
