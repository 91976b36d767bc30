"""The model card of a plan: README.md with the tags that the Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsediff.plans.evidence import Evidence
from sparsediff.plans.plan_summary import expectations

_PROMPTS = 10  # shown
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(summary: Mapping[str, Any], evidence: Evidence, repo_id: str | None = None) -> str:
    """The text of README.md for a plan's summary; `repo_id` is where it will be uploaded."""
    model = evidence.model if is_on_hub(evidence.model) else None
    front = ["---", "library_name: diffusers"]
    if model:
        front.append(f"base_model: {json.dumps(model)}")
    front += ["tags:", "- sparsediff", "- sparse-attention", "- sparse-vdit", "---"]
    body = [
        "# Sparse attention plan",
        f"Which blocks of self-attention every head of {_listing(summary['models'])} has to compute, "
        f"found by `sparsediff search` (Sparse-vDiT, arXiv 2506.03065).",
        _use(model, repo_id),
        _figures(summary, evidence),
        _origin(summary, evidence),
        _prompts(evidence),
        _limits(summary),
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(filter(None, body)) + "\n"


def is_on_hub(model: str | None) -> bool:
    """Whether a model is named by its Hub id, not by a folder of this machine."""
    return bool(model and _HUB_ID.fullmatch(model) and not Path(model).exists())


def _use(model: str | None, repo_id: str | None) -> str:
    return f"""## Use

```python
import sparsediff
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{model or "the model it was searched on"}")
pipe.enable_sparse_attention("{repo_id or "this folder"}")
```"""


def _figures(summary: Mapping[str, Any], evidence: Evidence) -> str:
    rows = {
        "grid of tokens": f"{summary['grid']}, blocks of {summary['block_size']}",
        "layers and heads": f"{summary['layers']} layers, {summary['heads']} heads",
        "parts of the run": f"starting at {', '.join(f'{s:g}' for s in summary['starts'])}",
        "density in sparse calls": f"{summary['density']:.3f}",
        **{f"heads in mode {mode}": str(n) for mode, n in summary["modes"].items()},
        "expected of a run": expectations(evidence) or "not measured",
    }
    return "## Figures\n\n| | |\n|---|---|\n" + "\n".join(
        f"| {plain(name)} | {plain(value)} |" for name, value in rows.items()
    )


def _origin(summary: Mapping[str, Any], evidence: Evidence) -> str:
    facts = {
        "prompts": f"{summary['prompts']}, seeds {', '.join(map(str, summary['seeds'])) or 'none'}",
        "sampling": f"{summary['scheduler'] or 'unknown'}, {summary['steps'] or 'unknown'} steps",
        "budget": f"{evidence.budget} {evidence.target:g}"
        if evidence.budget and evidence.target is not None
        else "none",
        "costs": evidence.cost_source or "unknown",
        "machine": f"{evidence.device or 'unknown'}, {evidence.dtype or 'unknown'}",
        "versions": ", ".join(f"{name} {number}" for name, number in evidence.versions.items()),
        "weights (SHA-256 of a sample)": summary["weights"] or "unknown",
        "command": evidence.command or "none",
    }
    lines = [f"- {name}: {plain(value)}" for name, value in facts.items() if value]
    return "## How it was searched\n\n" + "\n".join(lines)


def _prompts(evidence: Evidence) -> str:
    lines = [f"- {plain(prompt)}" for prompt in evidence.prompts[:_PROMPTS]]
    more = len(evidence.prompts) - len(lines)
    lines += [f"- and {more} more, in plan.json"] if more > 0 else []
    return "\n".join(["## Calibration prompts\n", *lines]) if lines else ""


def _limits(summary: Mapping[str, Any]) -> str:
    return f"""## Limits

- The patterns belong to the grid {plain(summary["grid"])}. Another size or length is an error;
  with `strict=False` window widths are carried over and stripes run as full attention.
- They were fitted to the prompts above. `online_above=0.1` searches heads whose error was larger than
  that again while generating.
- A fine-tune of the model works, with a warning; another architecture is an error."""


def _listing(names: list[str]) -> str:
    return " and ".join(f"`{plain(name)}`" for name in names)


def plain(value: str) -> str:
    """Text that cannot become Markdown, HTML or a cell of a table."""
    line = " ".join(value.split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", line)
