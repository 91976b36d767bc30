"""Train the transformer of shapes-wan by flow matching on rendered clips; see README.md."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import checkpoint
import torch
from attention import PickedFrames, set_training_attention
from captions import CAPTION_TOKENS, TEXT_DIM
from clips import ClipSource, generator_of
from diffusers import WanTransformer3DModel
from loop import train
from muon import Optimizer
from recipe import KINDS, RECIPES, Kind, Recipe
from torch import Tensor

LONGEST_PROMPT = 512


def build_transformer(channels: int, seed: int) -> WanTransformer3DModel:
    """A new transformer of 3.93 M parameters that starts by predicting zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WanTransformer3DModel(
            patch_size=(1, 1, 1),
            num_attention_heads=6,
            attention_head_dim=32,
            in_channels=channels,
            out_channels=channels,
            text_dim=TEXT_DIM,
            freq_dim=256,
            ffn_dim=768,
            num_layers=6,
        )
    torch.nn.init.zeros_(model.proj_out.weight)
    torch.nn.init.zeros_(model.proj_out.bias)
    return model


def noise_levels(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels `[count]` in 0..1: logit-normal, shifted, one from each equal share of it."""
    order, place = (
        torch.randperm(count, generator=generator),
        torch.rand(count, generator=generator),
    )
    normal = torch.special.ndtri(((order + place) / count).clamp(1e-4, 1 - 1e-4))
    u = torch.sigmoid(normal)
    return shift * u / (1 + (shift - 1) * u)


def padded_length(generator: torch.Generator) -> int:
    """Tokens that captions act as padded to: in half of the draws the longest, else any length."""
    chance, share = torch.rand(2, generator=generator).tolist()
    ratio = LONGEST_PROMPT / CAPTION_TOKENS
    return LONGEST_PROMPT if chance < 0.5 else int(CAPTION_TOKENS * ratio**share)


def picked_frames(kind: Kind, generator: torch.Generator) -> Tensor:
    """Numbers of the latent frames that a step trains on, ascending.

    The first frame is always there: it is encoded alone, and the model knows it by its place.
    """
    later = 1 + torch.randperm(kind.frames - 1, generator=generator)
    return (
        torch.cat([torch.zeros(1, dtype=torch.int64), later])[: kind.picked or None].sort().values
    )


def flow_loss(
    model: torch.nn.Module, latents: Tensor, text: Tensor, levels: Tensor, noise: Tensor
) -> Tensor:
    """Mean squared error of the predicted velocity (noise - latents) at the noise levels `[b]`."""
    mixed = torch.lerp(latents, noise, levels[:, None, None, None, None])
    with torch.autocast(latents.device.type, torch.bfloat16):
        velocity = model(mixed, 1000 * levels, text, return_dict=False)[0]
    return (velocity.float() - (noise - latents)).pow(2).mean()


class TransformerTraining:
    """The training of one transformer; every random number follows from the seed and the step."""

    def __init__(
        self,
        model: WanTransformer3DModel,
        source: ClipSource,
        recipe: Recipe,
        *,
        seed: int,
        compiled: bool,
    ):
        self.source, self.recipe, self.seed, self.steps = source, recipe, seed, recipe.steps
        self.model = model.to(source.device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.text_attention = set_training_attention(self.model)
        self.model.rope = PickedFrames(self.model.rope)
        # One graph per kind: sizes that vary inside one graph make it slower than none.
        self.fast = torch.compile(self.model, dynamic=False) if compiled else self.model
        matrices, others = [], []
        for name, parameter in self.model.named_parameters():
            in_block = name.startswith("blocks.") and parameter.ndim == 2
            (matrices if in_block else others).append((name, parameter))
        rates = {"muon_rate": recipe.muon_rate, "adamw_rate": recipe.adamw_rate}
        self.optimizer = Optimizer(matrices, others, **rates, decay=0.01)

    def train_step(self, step: int) -> dict[str, float]:
        """One update on clips of a kind drawn from the recipe's mix; gives the loss by kind."""
        mix = self.recipe.mix_at(step)
        generator = generator_of(self.seed, step, 0)
        shares = torch.tensor(list(mix.values()))
        name = list(mix)[int(torch.multinomial(shares, 1, generator=generator))]
        loss = self._loss(KINDS[name], step, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(self.recipe.scale_at(step))
        weight = min(self.recipe.average, (2 + step) / (11 + step))
        with torch.no_grad():
            pair = list(self.average.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(*pair, 1 - weight)
        return {name: loss.item()}

    def _loss(self, kind: Kind, step: int, generator: torch.Generator) -> Tensor:
        seed = generator_of(self.seed, step // self.recipe.uses, 1).initial_seed()
        clips = self.source.clips(kind, seed)
        dropped = torch.rand(kind.batch, generator=generator) < self.recipe.drop_caption
        text, counts = self.source.text(clips.captions, dropped)
        self.text_attention.pad_to(counts, padded_length(generator))
        latents = self.model.rope.pick(clips.latents, picked_frames(kind, generator))
        levels = noise_levels(kind.batch, kind.shift, generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        model = self.fast if kind.compiled else self.model
        return flow_loss(model, latents, text, levels, noise)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and optimiser state by name."""
        model = {f"model.{name}": p for name, p in self.model.named_parameters()}
        average = {f"average.{name}": p for name, p in self.average.named_parameters()}
        return {**model, **average, **self.optimizer.tensors()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for part, model in (("model", self.model), ("average", self.average)):
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[f"{part}.{name}"])
        self.optimizer.load(tensors)

    def export(self, folder: Path) -> None:
        """Write the averaged weights, float32, to `folder`/transformer."""
        self.average.save_pretrained(folder / "transformer")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the checkpoints of a new run")
    place.add_argument("--resume", type=Path, help="folder of a run to go on with, exactly")
    parser.add_argument("--vae", type=Path, default="samples/models/shapes-wan/vae")
    parser.add_argument("--start", type=Path, help="transformer folder to start a new run from")
    parser.add_argument("--recipe", choices=RECIPES, default="continue")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the short clips")
    parser.add_argument("--save-every", type=float, default=300, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    """Start or resume a run; gives the exit status."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    info = {"recipe": args.recipe, "seed": args.seed, "vae": str(args.vae)}
    if args.resume:
        info = {key: checkpoint.info_of(args.resume)[key] for key in info}
    source = ClipSource(Path(info["vae"]), args.device)
    if args.start and not args.resume:
        model = WanTransformer3DModel.from_pretrained(args.start, torch_dtype=torch.float32)
    else:
        model = build_transformer(source.mean.numel(), info["seed"])
    training = TransformerTraining(
        model, source, RECIPES[info["recipe"]], seed=info["seed"], compiled=args.compile
    )
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    folder = args.resume or args.output
    return train(training, folder, info, resume=bool(args.resume), save_every=args.save_every)


if __name__ == "__main__":
    raise SystemExit(main())
