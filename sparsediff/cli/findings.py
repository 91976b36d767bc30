"""The text that `sparsediff doctor` prints."""

from __future__ import annotations

from typing import Any

from sparsediff.cli.table import table


def findings(found: dict[str, Any]) -> str:
    """The findings as aligned plain text, the verdict last."""
    cpu = found["cpu"]
    machine = [
        ("device", f"{found['device']} ({found['device_name']})"),
        ("cpu", f"{', '.join(cpu['features']) or 'no vector features known'}"),
        ("compiler", cpu["compiler"] or "none; the cpu backend uses its slower path"),
    ]
    parts = ["versions", table(list(found["versions"].items()))]
    parts += [f"warning: {sentence}" for sentence in found["warnings"]]
    parts += ["", "machine", table(machine)]
    parts += ["", 'kernel backends, in the order "auto" tries them', table(_backends(found))]
    parts += [_ranking(found["ranking"]), ""]
    if found["model"]:
        parts += ["model", table(_model(found["model"])), ""]
    return "\n".join([*parts, _verdict(found)])


def _backends(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Those that "auto" tries first, then the others."""
    ranking, states = found["ranking"], found["backends"]
    rows = []
    for name in sorted(states, key=[*ranking["order"], *states].index):
        words = "usable" if states[name]["usable"] else f"no: {'; '.join(states[name]['reasons'])}"
        if name in ranking["seconds"]:
            words += f", {ranking['seconds'][name] * 1e3:.2f} ms"
        if name in ranking["failures"]:
            words = f"left out: {ranking['failures'][name]}"
        rows.append((name, words))
    return rows


def _ranking(ranking: dict[str, Any]) -> str:
    if ranking["pinned"]:
        return f'"auto" is pinned to {ranking["pinned"]} by SPARSEDIFF_BACKEND'
    if ranking["seconds"]:
        return f"timed on a small problem ({ranking['call']}), kept in {ranking['file']}"
    return "nothing was timed: the fixed order"


def _model(model: dict[str, Any]) -> list[tuple[str, str]]:
    frames, rows, columns = model["grid"]
    text = f" + {model['text_tokens']} text" if model["text_tokens"] else ""
    parts = ", ".join(f"{name} {_count(n)}" for name, n in model["parameters"].items())
    denoisers = ", ".join(f"{name} ({cls})" for name, cls in model["denoisers"].items())
    return [
        ("pipeline", model["pipeline"]),
        ("sparse in", denoisers),
        ("size", f"{model['width']}x{model['height']}, {_frames(model['frames'])}"),
        ("tokens", f"{model['tokens']:,} = {frames} x {rows} x {columns}{text}"),
        ("attention", f"{model['layers']} layers, {model['heads']} heads of {model['head_dim']}"),
        ("blocks", f"{model['blocks']} x {model['blocks']} a head"),
        ("attention share", f"{model['attention_share']:.0%} of the transformer's multiply-adds"),
        *_gain(model),
        ("parameters", parts),
        ("weights", f"{_gib(model['weights_gib'])} in {model['dtype']}, all parts"),
        ("activations", f"about {_gib(model['activations_gib'])} in the transformer"),
        ("sparse adds", f"about {_gib(model['sparse_gib'])} for patterns and caches"),
    ]


def _gain(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The gate's prediction; by multiply-adds alone where nothing could be timed."""
    gain = model["gain"]
    if "unknown" in gain:
        words = (
            f"about {model['ideal_speedup']:.2f}x at density {model['density']:g}, if all "
            f"multiply-adds took equally long (not timed: {gain['unknown']})"
        )
        return [("speed-up", words)]
    text = " with the text" if model["text_tokens"] else ""
    return [
        (
            "attention time",
            f"{gain['ratio']:.2f} of dense attention's in {gain['steps']} steps at density "
            f"{gain['density']:.2f}{text}, of which {max(0.0, gain['search_share']):.2f} finds the "
            f"patterns; from times measured here, for {gain['case']}",
        ),
        (
            "speed-up",
            f"about {gain['speedup']:.2f}x in the denoising loop; attention is "
            f"{gain['attention_share']:.0%} of a dense step's time here",
        ),
        ("pays", _pays(gain)),
    ]


def _pays(gain: dict[str, Any]) -> str:
    if gain["break_even"] is not None:
        return f"{'yes' if gain['pays'] else 'no'}; from about {gain['break_even']:,} tokens on"
    return "yes" if gain["pays"] else "no, at no length that was timed"


def _verdict(found: dict[str, Any]) -> str:
    if found["problem"]:
        return f"problem: {found['problem']}"
    if found["model"] is None:
        return "next: sparsediff doctor --model MODEL --size 832x480x81"
    if not found["model"]["gain"].get("pays", True):
        return (
            "supported, but sparse attention does not pay at this size: it will run dense here, or "
            "sparse with --no-gate."
        )
    share = found["model"]["attention_share"]
    if share < 0.2:
        return f"supported, but attention is only {share:.0%} of the work at this size."
    return 'supported. next: sparsediff generate MODEL "a prompt" --compare'


def _frames(count: int) -> str:
    return "one image" if count == 1 else f"{count} frames"


def _gib(value: float) -> str:
    return f"{value:.1f} GiB" if value >= 1 else f"{value * 1024:.1f} MiB"


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.2f} M"
