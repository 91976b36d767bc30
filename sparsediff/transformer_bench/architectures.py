"""Published transformer architectures, as facts: sizes, text length, what one denoising step runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.token_size import Size

PIXELS = 8  # along a side of a latent, in all of these autoencoders
_PATCH = 2  # latents along the side of a token, as patches or packed


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One model as it was published.

    ``model`` is its class in diffusers, ``config`` that class's arguments, ``source`` where they are
    published, ``parameters`` the published number of them. ``stacks`` are the config entries that count
    blocks. ``text`` is the length in tokens of the text the pipeline passes. A denoising step is one
    forward for each of ``branches`` (the names the pipeline gives to diffusers' cache context), each of
    ``batch`` samples; ``step`` says that in words. ``frames_in_latent`` pixel frames make a latent
    frame, the first one alone; 0 for images.
    """

    name: str
    model: str
    config: Mapping[str, Any]
    source: str
    parameters: float
    stacks: tuple[str, ...]
    text: int
    branches: tuple[str, ...]
    batch: int
    step: str
    frames_in_latent: int = 4

    @property
    def layers(self) -> int:
        """Blocks of the whole model."""
        return sum(int(self.config[stack]) for stack in self.stacks)

    def with_layers(self, layers: int | None) -> Mapping[str, Any]:
        """The config of a model of that many blocks, or of all; two kinds of blocks keep their ratio.

        Of each kind at least one stays. Raises SparseError for a number the model does not have.
        """
        if layers is None:
            return self.config
        if not 1 <= layers <= self.layers:
            raise SparseError(f"--layers {layers}: {self.name} has {self.layers}; give 1 to that.")
        counts, left = {}, layers
        for stack in self.stacks[:-1]:
            share = round(layers * int(self.config[stack]) / self.layers)
            counts[stack] = max(1, share)
            left -= counts[stack]
        counts[self.stacks[-1]] = max(1, left)
        return {**self.config, **counts}

    def latents(self, size: Size) -> tuple[int, int, int]:
        """Latent frames, rows and columns of (width, height, frames) in pixels; images have one frame.

        Raises SparseError, with a size that fits, for one the pipeline would refuse.
        """
        width, height, frames = size
        side, time = PIXELS * _PATCH, self.frames_in_latent
        if width % side or height % side or (time and (frames - 1) % time):
            near = [max(side, (value + side // 2) // side * side) for value in (width, height)]
            last = [(frames - 1 + time // 2) // time * time + 1] if time else []
            raise SparseError(
                f"{self.name} cannot make {'x'.join(map(str, size))}: width and height have to be "
                f"multiples of {side}"
                + (f", frames one more than a multiple of {time}" if time else "")
                + f". The nearest size that fits is {'x'.join(map(str, near + last))}."
            )
        pair = self.config.get("patch_size_t") or 1  # the pipeline completes an incomplete token
        count = (frames - 1) // time + 1 if time else 1
        return -(-count // pair) * pair, height // PIXELS, width // PIXELS


ARCHITECTURES: dict[str, Architecture] = {
    found.name: found
    for found in (
        Architecture(
            name="wan2.1-14b",
            model="WanTransformer3DModel",
            source="Wan-AI/Wan2.1-T2V-14B-Diffusers, transformer/config.json",
            parameters=14.3e9,
            config={
                "patch_size": (1, 2, 2),
                "num_attention_heads": 40,
                "attention_head_dim": 128,
                "in_channels": 16,
                "out_channels": 16,
                "text_dim": 4096,
                "freq_dim": 256,
                "ffn_dim": 13824,
                "num_layers": 40,
                "cross_attn_norm": True,
                "qk_norm": "rms_norm_across_heads",
                "eps": 1e-6,
                "rope_max_seq_len": 1024,
            },
            stacks=("num_layers",),
            text=512,
            branches=("cond", "uncond"),
            batch=1,
            step="two forwards, with the prompt and with the negative one",
        ),
        Architecture(
            name="hunyuanvideo",
            model="HunyuanVideoTransformer3DModel",
            source="hunyuanvideo-community/HunyuanVideo, transformer/config.json",
            parameters=12.8e9,
            config={
                "in_channels": 16,
                "out_channels": 16,
                "num_attention_heads": 24,
                "attention_head_dim": 128,
                "num_layers": 20,
                "num_single_layers": 40,
                "num_refiner_layers": 2,
                "mlp_ratio": 4.0,
                "patch_size": 2,
                "patch_size_t": 1,
                "qk_norm": "rms_norm",
                "guidance_embeds": True,
                "text_embed_dim": 4096,
                "pooled_projection_dim": 768,
                "rope_theta": 256.0,
                "rope_axes_dim": (16, 56, 56),
            },
            stacks=("num_layers", "num_single_layers"),
            text=256,
            branches=("cond",),
            batch=1,
            step="one forward; the guidance scale is an input",
        ),
        Architecture(
            name="cogvideox1.5-5b",
            model="CogVideoXTransformer3DModel",
            source="THUDM/CogVideoX1.5-5B, transformer/config.json",
            parameters=5.6e9,
            config={
                "num_attention_heads": 48,
                "attention_head_dim": 64,
                "in_channels": 16,
                "out_channels": 16,
                "time_embed_dim": 512,
                "text_embed_dim": 4096,
                "num_layers": 42,
                "sample_width": 300,
                "sample_height": 300,
                "sample_frames": 81,
                "patch_size": 2,
                "patch_size_t": 2,
                "patch_bias": False,
                "max_text_seq_length": 226,
                "use_rotary_positional_embeddings": True,
            },
            stacks=("num_layers",),
            text=226,
            branches=("cond_uncond",),
            batch=2,
            step="one forward of two samples, with the prompt and with the negative one",
        ),
        Architecture(
            name="flux",
            model="FluxTransformer2DModel",
            source="black-forest-labs/FLUX.1-dev, transformer/config.json",
            parameters=11.9e9,
            config={
                "patch_size": 1,
                "in_channels": 64,
                "num_layers": 19,
                "num_single_layers": 38,
                "attention_head_dim": 128,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "pooled_projection_dim": 768,
                "guidance_embeds": True,
                "axes_dims_rope": (16, 56, 56),
            },
            stacks=("num_layers", "num_single_layers"),
            text=512,
            branches=("cond",),
            batch=1,
            step="one forward; the guidance scale is an input",
            frames_in_latent=0,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture of that name; SparseError with the known names when there is none."""
    if name not in ARCHITECTURES:
        raise SparseError(f"No architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]
