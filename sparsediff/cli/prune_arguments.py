"""The arguments of `sparsediff prune`; importing this imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from sparsediff.cli.flags import flags_of, folder
from sparsediff.cli.generate_arguments import DTYPE_NAMES

# Written out because the packages that know them import torch; a test compares them.
OBJECTIVES = ("ecodiff", "fisher", "magnitude", "wanda", "owl", "random")
KINDS = ("heads", "ffn", "blocks")
SCOPES = ("kind", "layer")
LIMIT = 100

# Of ecodiff, what says something only beside --start fisher.
START = ("fisher_draws", "fisher_along", "start_spread")
# Flags that are options of an objective under the same name.
OPTIONS = {
    "ecodiff": (
        *("steps", "guidance", "iterations", "batch", "accumulation", "heads_learning_rate"),
        *("ffn_learning_rate", "blocks_learning_rate", "schedule", "warmup_iterations", "clip"),
        *("distance", "beta", "regulariser", "initial_logit", "damping", "precision"),
        *("start", *START),
        *("latents_every", "gradient_checkpointing", "seed", "checkpoint_every"),
        *("keep_checkpoints",),
    ),
    "fisher": (
        *("steps", "guidance", "fisher_draws", "fisher_along", "batch", "precision"),
        *("latents_every", "gradient_checkpointing", "seed"),
    ),
    "magnitude": (),
    "wanda": ("per_row", "step_weights"),
    "owl": ("base", "outlier", "spread", "step_weights"),
    "random": ("seed",),
}
# Besides, criteria that run the pipeline need to know in how many steps, and how it is guided.
RUN = {"wanda": ("steps", "guidance", "seed"), "owl": ("steps", "guidance", "seed")}


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add every argument, in groups."""
    p.add_argument("model", metavar="MODEL", help="pipeline folder or Hub id, or a model's folder")
    flag = flags_of(p)
    out = "folder for what is left: loadable as MODEL is"
    flag("out", type=folder, metavar="DIR", required=True, help=out)
    target = "what may go: some of heads,ffn,blocks (heads,ffn)"
    flag("target", type=_kinds, default=("heads", "ffn"), metavar="KINDS", help=target)
    flag("ratio", type=float, default=0.2, help="share of each kind's units given up (%(default)s)")
    flag("objective", choices=OBJECTIVES, default="ecodiff", help="what tells them (%(default)s)")
    flag("prompts", metavar="FILE", help="prompts, one a line; magnitude and random need none")
    flag("limit", type=int, default=LIMIT, metavar="N", help="use the first N (%(default)s)")
    flag("scope", choices=SCOPES, help="layers compete, or give up alike (the objective's)")
    flag("heads_multiple_of", type=int, default=1, metavar="N", help="as Ulysses needs (1)")
    flag("least", type=int, default=1, metavar="N", help="units that a layer keeps at least (1)")
    resume = "ecodiff: go on from the latest or a named checkpoint; latest begins anew without one"
    flag("resume", nargs="?", const="latest", metavar="NAME", help=resume)
    _add_learning(flags_of(p.add_argument_group("ecodiff (arXiv 2412.02852), fisher")))
    _add_scoring(flags_of(p.add_argument_group("wanda, owl")))
    _add_run(flags_of(p.add_argument_group("run")))


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(part.strip() for part in text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r}: needs some of {','.join(KINDS)}")
    return kinds


def _add_learning(flag: Callable[..., None]) -> None:
    flag("iterations", type=int, metavar="N", help="updates (100)")
    flag("batch", type=int, metavar="N", help="prompts at a time for each process (1)")
    flag("accumulation", type=int, metavar="N", help="batches for one update (4)")
    flag("beta", type=float, help="weight of the penalty (0.5)")
    flag("regulariser", choices=("l0", "l1", "bounded-l1"), help="what open gates cost (l0, exact)")
    flag("distance", choices=("mse", "rms"), help="of the final latents (mse)")
    for kind in KINDS:
        flag(f"{kind}_learning_rate", type=float, help=f"rate of the gates of {kind} (0.1)")
    schedules = ("constant", "constant_with_warmup", "cosine", "linear")
    flag("schedule", choices=schedules, help="of the rates (constant_with_warmup)")
    flag("warmup_iterations", type=int, metavar="N", help="in which the rates rise (10)")
    flag("clip", type=float, help="largest norm of the gradients (1)")
    flag("initial_logit", type=float, help="of all gates, or of the middle one; 3 is open (3)")
    flag("damping", type=float, help="of the gates' noise; 0 is the exact hard concrete (0.5)")
    starts = "all gates alike, or by their units' Fisher information (even)"
    flag("start", choices=("even", "fisher"), help=starts)
    flag("fisher_draws", type=int, metavar="N", help="samples for that information (40)")
    along = "what counts: all of the latents, what prompts change in them (both)"
    flag("fisher_along", choices=("noise", "prompts", "both"), help=along)
    flag("start_spread", type=float, help="logits from the first to the last by it (6)")
    flag("precision", choices=("no", "fp16", "bf16"), help="autocast (no)")
    flag("latents_every", type=int, metavar="N", help="keep one latent in N of a chain (2)")
    flag("gradient_checkpointing", action="store_true", default=None, help="the model's own, too")
    flag("checkpoint_every", type=int, metavar="N", help="iterations; 0 for never (10)")
    flag("keep_checkpoints", type=int, metavar="N", help="(2)")


def _add_scoring(flag: Callable[..., None]) -> None:
    flag("step_weights", choices=("even", "log"), help="how much each step counts (even)")
    flag("per_row", action=argparse.BooleanOptionalAction, help="wanda: every row counts alike")
    flag("base", choices=("magnitude", "wanda"), help="owl: what scores the units (wanda)")
    flag("outlier", type=float, help="owl: an outlier is so many times the mean (7)")
    flag("spread", type=float, help="owl: layers keep up to so much more or less (0.08)")


def _add_run(flag: Callable[..., None]) -> None:
    flag("steps", type=int, metavar="N", help="denoising steps of all that runs, and of samples")
    flag("guidance", type=float, help="guidance scale (the pipeline's)")
    flag("size", metavar="WxHxF", help="pixels and frames (default: generation.json)")
    flag("samples", type=int, default=1, metavar="N", help="prompts shown before and after (1)")
    flag("repeat", type=int, default=3, metavar="N", help="runs of each to time them (%(default)s)")
    flag("seed", type=int, help="(0)")
    flag("dtype", choices=DTYPE_NAMES, help="dtype of the weights")
    flag("device", help="cpu, or what accelerate finds")
    flag("json", action="store_true", help="print one JSON object and nothing else")
    flag("quiet", action="store_true", help="tell no progress")
