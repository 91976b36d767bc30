"""The model card of a student: README.md with the tags that the Hub reads."""

from __future__ import annotations

import json

from sparsediff.distill.student.student_card import StudentCard
from sparsediff.plans.model_card import is_on_hub, plain


def student_readme(card: StudentCard, scheduler: str) -> str:
    """The text of README.md; `scheduler` is the name of its class."""
    base = card.model if card.model and is_on_hub(card.model) else None
    front = ["---", "library_name: diffusers"]
    if base:
        front += [f"base_model: {json.dumps(base)}"]
        front += [f"base_model_relation: {'adapter' if card.rank else 'finetune'}"]
    tags = ["sparsediff", "step-distillation", *(["lora"] if card.rank else [])]
    tags += ["sparse-attention"] if card.method else []
    front += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    body = [
        f"# {card.steps}-step student",
        f"`{plain(card.base.components[0].model)}` distilled to {card.steps} steps {_guidance(card)}"
        f"{f', trained with sparse attention ({plain(card.method)})' if card.method else ''}.",
        _with_sparsediff(card, base),
        _with_diffusers(card, scheduler),
        _origin(card),
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"


def _guidance(card: StudentCard) -> str:
    if card.guidance == 1:
        return "without guidance"
    return f"that are run with {card.guidance_name} {card.guidance:g}"


def _call(card: StudentCard) -> str:
    return f"pipe(prompt, num_inference_steps={card.steps}, {card.guidance_name}={card.guidance:g})"


def _with_sparsediff(card: StudentCard, base: str | None) -> str:
    negative = "; negative prompts have no effect" if card.guidance == 1 else ""
    return f"""## Use

```python
import sparsediff
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base or "the model it was trained on"}")
sparsediff.load_student(pipe, "this folder or its Hub id")
{_call(card)}
```

Any other number of steps leaves the noise levels it was trained at{negative}."""


def _with_diffusers(card: StudentCard, scheduler: str) -> str:
    part = card.component
    load = [
        "pipe.load_lora_weights(folder)",
        f'# without that: pipe.{part}.load_lora_adapter(folder, prefix="{part}")',
    ]
    if card.rank is None:
        load = [f'pipe.{part} = type(pipe.{part}).from_pretrained(folder, subfolder="{part}")']
    lines = "\n".join(load)
    dense = "\n\nAttention is dense then, which it was not trained with." if card.method else ""
    return f"""Without sparsediff, where `folder` is this folder:

```python
import diffusers

{lines}
kind = diffusers.{scheduler}
pipe.scheduler = kind.from_pretrained(folder, subfolder="scheduler")
{_call(card)}
```{dense}"""


def _origin(card: StudentCard) -> str:
    facts = {
        "grid": ", ".join(f"{t:g}" for t in card.timesteps),
        "guidance of the teacher": "none"
        if card.teacher_guidance is None
        else f"{card.teacher_guidance:g}",
        "LoRA": f"rank {card.rank}, alpha {card.alpha:g}" if card.rank else "none, all weights",
        **{name: f"{value:g}" for name, value in card.figures.items()},
        "versions": ", ".join(f"{name} {number}" for name, number in card.versions.items()),
        "command": card.command or "",
    }
    lines = [f"- {plain(name)}: {plain(value)}" for name, value in facts.items() if value]
    return "## How it was made\n\n" + "\n".join(lines)
