"""Toy pipelines as folders, as save_pretrained and a generation.json make them."""

import json

from tiny_pipelines import flux, wan

PROMPT = "a red circle"
# 2 x 8 x 8 tokens: two blocks of 64, so that there is something to leave out.
CALL = {
    "height": 128,
    "width": 128,
    "num_frames": 5,
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}
LAYERS, BRANCHES = 3, 2
# 16 x 16 tokens and 16 of text: five blocks.
PICTURE_CALL = {
    "height": 32,
    "width": 32,
    "num_inference_steps": 4,
    "guidance_scale": 3.5,
    "max_sequence_length": 16,
}


def toy_folder(path):
    """Write the pipeline into `path` and return it as a text."""
    return _folder(wan(layers=LAYERS), path, CALL)


def toy_picture_folder(path):
    """Write a toy Flux pipeline, which makes one picture, into `path` and return it as a text."""
    return _folder(flux(), path, PICTURE_CALL)


def _folder(pipe, path, call):
    pipe.save_pretrained(path)
    recipe = {
        "schema": "sparsediff.generation/1",
        "prompt": PROMPT,
        "call": call,
        "fps": 8,
        "dtype": "float32",
    }
    (path / "generation.json").write_text(json.dumps(recipe))
    return str(path)
