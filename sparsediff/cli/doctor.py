"""`sparsediff doctor`: what this machine has, and whether a model can run sparse on it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from sparsediff.cli.generate_arguments import METHOD_NAMES

if TYPE_CHECKING:
    from sparsediff.estimate import ModelEstimate
    from sparsediff.kernels.inputs import AttentionInputs
    from sparsediff.search import Method

SCHEMA = "sparsediff.doctor/1"


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "doctor",
        help="what this machine has and whether a model can run sparse on it",
        description="Versions, device and kernel backends with the reason why one cannot be used. With "
        "--model also tokens, memory, the share of attention and, by times that are measured once, "
        "whether sparse attention pays here; only configs are read, no weights. "
        "Exit code 1 when the model cannot run sparse here, or nothing can be said before it runs.",
    )
    p.add_argument("--model", help="pipeline folder or Hub id")
    p.add_argument("--size", metavar="WxHxF", help="pixels and frames, such as 832x480x81")
    p.add_argument("--density", type=float, default=0.2, help="default: %(default)s")
    p.add_argument("--method", choices=METHOD_NAMES, default="adaspa", help="default: %(default)s")
    p.add_argument("--device", help="default: cuda if there is one, else cpu")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError for a bad --device or --size."""
    with contextlib.redirect_stdout(sys.stderr):
        found = examine(args)
    if args.json:
        print(json.dumps(found, allow_nan=False))
    else:
        from sparsediff.cli.findings import findings

        print(findings(found))
    return 0 if found["ok"] else 1


def examine(args: argparse.Namespace) -> dict[str, Any]:
    """Everything doctor can say, JSON-ready."""
    import torch

    from sparsediff import environment
    from sparsediff.loading import resolve_device

    device = resolve_device(args.device)
    model, problem = _model(args, device)
    dtype, head_dim = (model["dtype"], model["head_dim"]) if model else ("bfloat16", 64)
    call = small_call(device, dtype=dtype, head_dim=head_dim)
    backends = backend_reasons(call)
    if args.model and not problem and all(backends.values()):
        problem = f"No kernel backend can run {dtype} with head dim {head_dim} on {device}."
    return {
        "schema": SCHEMA,
        "ok": not problem,
        "problem": problem or None,
        "versions": environment.versions(),
        "warnings": environment.untested(),
        "device": device,
        "device_name": environment.device_name(device),
        "cpu": {
            "name": environment.processor(),
            "threads": torch.get_num_threads(),
            "features": environment.cpu_features(),
            "compiler": environment.compiler(),
        },
        "backends": {name: {"usable": not why, "reasons": why} for name, why in backends.items()},
        "ranking": backend_ranking(call),
        "model": model,
    }


def _model(args: argparse.Namespace, device: str) -> tuple[dict[str, Any] | None, str]:
    """The estimate of --model with its outlook under "gain", or why there is none."""
    from sparsediff.estimate import estimate
    from sparsediff.generation import GenerationRecipe
    from sparsediff.kernels.errors import SparseError
    from sparsediff.loading import resolve_dtype
    from sparsediff.model_files import ModelFiles
    from sparsediff.search import METHODS
    from sparsediff.token_size import parse_size

    method = METHODS[args.method](density=args.density)  # refuses what generate would refuse
    size = parse_size(args.size) if args.size is not None else None
    if args.model is None:
        if size is not None:
            raise SparseError(
                f"--size {args.size} says nothing without a model; add --model MODEL."
            )
        return None, ""
    try:
        files = ModelFiles(name=args.model)
        dtype = resolve_dtype(None, GenerationRecipe.of(files), device)
        figures = estimate(files, size=size, density=args.density, dtype=dtype)
    except SparseError as error:
        return None, str(error)
    return {**figures.to_dict(), "gain": _gain(figures, method, device)}, ""


def _gain(figures: ModelEstimate, method: Method, device: str) -> dict[str, Any]:
    """What the gate will predict; "unknown" says why where nothing can be timed."""
    import torch

    from sparsediff.gain.outlook import outlook
    from sparsediff.kernels.errors import SparseError

    try:
        found = outlook(figures, method, torch.device(device))
    except (SparseError, RuntimeError, MemoryError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
    return {"unknown": found} if isinstance(found, str) else found.to_dict()


def small_call(device: str, *, dtype: str, head_dim: int) -> AttentionInputs:
    """A call of that kind that every backend which takes such calls can take."""
    import torch

    from sparsediff.kernels import BlockMask
    from sparsediff.kernels.inputs import attention_inputs

    x = torch.zeros(1, 128, 2, head_dim, device=device, dtype=getattr(torch, dtype))
    mask = BlockMask.from_dense(
        torch.eye(2, dtype=torch.bool, device=device).expand(1, 2, 2, 2),
        block_size=64,
        q_len=128,
        kv_len=128,
    )
    return attention_inputs(x, x, x, mask, scale=None, kv_lens=None, return_lse=False)


def backend_reasons(call: AttentionInputs) -> dict[str, list[str]]:
    """Why each backend cannot run such a call; an empty list where it can."""
    from sparsediff.kernels.registry import ordered_backends

    return {backend.name: backend.reasons(call) for backend in ordered_backends()}


def backend_ranking(call: AttentionInputs) -> dict[str, Any]:
    """What "auto" means for such a call, and the measurement behind it; made now if there is none."""
    from sparsediff.kernels import ranking_file
    from sparsediff.kernels.registry import auto_order, auto_rank, pinned_backend

    rank = auto_rank(call)
    return {
        "call": f"{str(call.q.dtype).removeprefix('torch.')}, head dim {call.q.shape[3]}, blocks of 64",
        "pinned": pinned_backend(),
        "order": [backend.name for backend in auto_order(call)],
        "seconds": rank.seconds if rank else {},
        "failures": rank.failures if rank else {},
        "file": str(ranking_file.path()),
    }
