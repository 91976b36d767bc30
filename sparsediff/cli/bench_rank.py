"""`sparsediff bench --rank`: measure every backend for one kind of call, for "auto" to follow."""

from __future__ import annotations

import argparse
import json
from typing import Any

SCHEMA = "sparsediff.rank/1"


def add_arguments(parser: Any) -> None:
    """Add the options of this part."""
    group = parser.add_argument_group("ranking")
    group.add_argument(
        "--rank",
        action="store_true",
        help='time every backend, those that compile included, and keep the order for "auto"',
    )
    group.add_argument("--head-dim", type=int, default=128, help="default: %(default)s")
    group.add_argument(
        "--backward", action="store_true", help="rank for training: forward and backward together"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, keep and print the rank; raises SparseError where such calls are not ranked."""
    import torch

    from sparsediff.cli.bench import BLOCK, block_size
    from sparsediff.kernels import rank_backends

    on_gpu = args.device.startswith("cuda")
    dtype = args.dtype or ("bfloat16" if on_gpu else "float32")
    block = block_size(args.block_size or str(BLOCK))
    rank = rank_backends(
        device=args.device,
        dtype=getattr(torch, dtype),
        head_dim=args.head_dim,
        block_size=block,
        needs_grad=args.backward,
    )
    ordered = sorted(rank.seconds.items(), key=lambda entry: entry[1])
    if args.json:
        facts = {"device": args.device, "dtype": dtype, "head_dim": args.head_dim}
        result = {"seconds": dict(ordered), "failures": dict(rank.failures)}
        print(json.dumps({"schema": SCHEMA, **facts, "block_size": block, **result}))
        return 0
    for name, seconds in ordered:
        print(f"{name:10} {seconds * 1e3:8.2f} ms")
    for name, reason in rank.failures.items():
        print(f"{name:10} left out: {reason}")
    print('"auto" follows this order on this machine for such calls from now on.')
    return 0
