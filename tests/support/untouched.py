"""What enabling may touch, to compare before and after."""

from __future__ import annotations

from typing import Any


def states(pipe: Any) -> list[dict[str, Any]]:
    """vars() of the pipeline, of its models, and of their attention processors."""
    touched: list[dict[str, Any]] = [dict(vars(pipe))]
    for name in ("transformer", "transformer_2", "unet"):
        model = getattr(pipe, name, None)
        if model is None:
            continue
        touched.append({k: v for k, v in vars(model).items() if k != "_modules"})
        touched[-1]["hooks"] = list(model._forward_pre_hooks)
        for module in model.modules():
            processor = getattr(module, "processor", None)
            if processor is not None:
                touched.append({"class": type(processor), "processor": processor})
                touched.append(dict(vars(processor)))
    return touched
