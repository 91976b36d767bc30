"""What test_ulysses.py reads: run by torchrun in two processes that talk over gloo.

Every process first runs a case whole, as a single process would, then the same case in parallel, and
writes how far apart the two are and what the reports say to ``<folder>/<rank>.json``.

    torchrun --standalone --nproc_per_node 2 tests/cpu/parallel/two_processes.py FOLDER [CASE ...]
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.distributed as dist
from diffusers.models import attention_dispatch
from tiny_pipelines import FAMILIES
from torch.distributed.device_mesh import init_device_mesh

from sparsediff.kernels.errors import SparseError
from sparsediff.search import (
    AdaSpa,
    BladeASA,
    PatternTable,
    PlannedHead,
    RandomBlocks,
    SparseVDiT,
    TokenGrid,
    Window,
)
from sparsediff.search.patterns.pattern import Diagonal, Full, Online, Skip

STEPS = 5
GRID = TokenGrid(frames=3, height=4, width=4)  # of Wan at 9 frames of 64 x 64


def plan() -> SparseVDiT:
    """A plan whose first two heads, in order those of the first process, compute everything."""
    full, narrow = PlannedHead(pattern=Full()), PlannedHead(pattern=Diagonal(half_width=0.05))
    skip, online = PlannedHead(pattern=Skip()), PlannedHead(pattern=Online(density=0.4))
    layers = ((full, full, narrow, skip), (full, full, online, narrow))
    return SparseVDiT(
        table=PatternTable(
            grid=GRID, block_size=8, starts=(0.2, 0.6), buckets=(layers, layers), density=0.6
        )
    )


_ULYSSES = {"ulysses_degree": 2}
_ADASPA = AdaSpa(density=0.4, block_size=8, warmup=0.2, refresh=(0.6,), recall_threshold=0.3)
_WINDOW = Window(density=0.4, block_size=8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, one method, and how the processes share it.

    ``dense``: it runs dense in parallel, so it is compared with a dense run.
    """

    method: Any
    family: str = "wan"
    heads: int = 4
    changes: dict[str, Any] = field(default_factory=dict)
    degrees: dict[str, Any] = field(default_factory=lambda: _ULYSSES)
    parallel_first: bool = False
    compiled: bool = False
    dense: bool = False


CASES = {
    "no session": Case(method=None),
    "dense as planned": Case(method=_ADASPA.with_options(dense_layers=9), dense=True),
    "adaspa": Case(method=_ADASPA),
    "adaspa, parallel first": Case(method=_ADASPA, parallel_first=True),
    "adaspa, two videos": Case(method=_ADASPA, changes={"num_videos_per_prompt": 2}),
    "adaspa, means": Case(method=_ADASPA.with_options(compensate=True)),
    "adaspa, curve": Case(method=_ADASPA.with_options(token_order="gilbert")),
    "adaspa, compiled": Case(method=_ADASPA, compiled=True),
    "window": Case(method=_WINDOW.with_options(warmup=0.2)),
    "random": Case(method=RandomBlocks(density=0.4, block_size=8, warmup=0.2)),
    "blade": Case(method=BladeASA(density=0.4, block_size=8, sample_tokens=3, energy=0.8)),
    "plan": Case(method=plan()),
    "two experts": Case(method=_ADASPA, family="wan22", heads=2),
    "flux": Case(method=_ADASPA, family="flux"),
    "flux, window": Case(method=_WINDOW, family="flux"),
    "kontext, window": Case(method=_WINDOW, family="flux_kontext"),
    "flux2, window": Case(method=_WINDOW, family="flux2"),
    "qwen, window": Case(method=_WINDOW, family="qwen_image"),
    "qwen, padded": Case(
        method=_WINDOW,
        family="qwen_image",
        changes={"prompt": ["a red circle", "a circle"], "negative_prompt": ["blurry", "grey"]},
        dense=True,
    ),
    "ring": Case(method=_ADASPA, degrees={"ring_degree": 2}, dense=True),
    "anything": Case(method=_ADASPA, degrees=_ULYSSES | {"ulysses_anything": True}, dense=True),
}


def build(case: Case) -> Any:
    pipe = FAMILIES[case.family].build()
    if case.family == "wan":  # with more heads than its processes
        torch.manual_seed(0)
        config = {**pipe.transformer.config, "num_attention_heads": case.heads, "num_layers": 2}
        pipe.register_modules(transformer=type(pipe.transformer).from_config(config).eval())
    return pipe


def share(pipe: Any, degrees: dict[str, Any]) -> None:
    """diffusers' own `enable_parallelism`, with a mesh of CPUs."""
    shape = (degrees.get("ring_degree", 1), degrees.get("ulysses_degree", 1))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("ring", "ulysses"))
    for name in ("transformer", "transformer_2"):
        model = getattr(pipe, name, None)
        if model is not None:
            config = diffusers.ContextParallelConfig(**degrees, mesh=mesh)
            model.enable_parallelism(config=config)


def run(case: Case, *, parallel: bool) -> tuple[torch.Tensor, dict[str, Any], str]:
    """Final latents, the report and its text."""
    pipe, family = build(case), FAMILIES[case.family]
    if parallel and case.parallel_first:
        share(pipe, case.degrees)
    session = None
    if case.method is not None and (parallel or not case.dense):
        session = pipe.enable_sparse_attention(case.method)
    if parallel and not case.parallel_first:
        share(pipe, case.degrees)
    if case.compiled and parallel:
        # diffusers' hook on the first block reads a signature once, which no graph can hold.
        family.run(pipe, steps=1, **case.changes)
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    out = family.run(pipe, steps=STEPS, **case.changes)
    if session is None:
        return out, {}, ""
    report = session.report()
    return out, report.to_dict(), str(report)


def compared(case: Case) -> dict[str, Any]:
    whole, alone, _ = run(case, parallel=False)
    parts, together, text = run(case, parallel=True)
    return {
        "apart": float((whole - parts).abs().max()),
        "largest": float(whole.abs().max()),
        "alone": alone,
        "together": together,
        "text": text,
    }


def gradients() -> dict[str, Any]:
    """The gradient of a forward at its input: whole, and through the exchange of two processes."""
    found = []
    for parallel in (False, True):
        pipe = build(CASES["adaspa"])
        session = pipe.enable_sparse_attention(_ADASPA.with_options(warmup=0.0))
        if parallel:
            share(pipe, _ULYSSES)
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, 16, 3, 8, 8, generator=generator).requires_grad_()
        text = torch.randn(1, 16, 32, generator=generator)
        out = pipe.transformer(latents, torch.tensor([5.0]), text, return_dict=False)[0]
        out.square().sum().backward()
        gradient = latents.grad
        if parallel:  # every process knows what its own tokens contribute
            dist.all_reduce(gradient)
        found.append((gradient, session.report().sparse_calls))
    (whole, _), (parts, sparse_calls) = found
    return {
        "apart": float((whole - parts).abs().max()),
        "largest": float(whole.abs().max()),
        "sparse_calls": sparse_calls,
    }


def three_heads() -> dict[str, Any]:
    """What is said when the processes cannot divide the heads."""
    try:
        run(Case(method=_ADASPA, heads=3), parallel=True)
    except SparseError as error:
        return {"said": str(error)}
    return {"said": ""}


def allow_cpu() -> None:
    """diffusers looks for accelerators even where it is given a mesh; ring needs a log-sum-exp."""
    torch.accelerator.device_count = lambda: 1  # type: ignore[assignment]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    plain = attention_dispatch._native_attention_forward_op
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")

    def forward_op(context: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip((*names, "enable_gqa", "return_lse"), args, strict=False)) | kwargs
        if not given["return_lse"]:
            return plain(context, *args, **kwargs)
        out, lse = flash(*(given[name].transpose(1, 2) for name in names[:3]))
        return out.transpose(1, 2), lse.transpose(1, 2)

    attention_dispatch._native_attention_forward_op = forward_op


def main(folder: Path, chosen: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    allow_cpu()
    others = {"gradients": gradients, "three heads": three_heads}
    found: dict[str, Any] = {"world": dist.get_world_size()}
    for name in chosen or [*CASES, *others]:
        found[name] = others[name]() if name in others else compared(CASES[name])
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
