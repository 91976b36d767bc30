"""Real diffusers pipelines at toy size with random weights, built without any download.

Random weights rank sparse methods backwards, so nothing here may judge quality: these pipelines show
that the right path ran and that dense results are unchanged.
"""

from tiny_pipelines import cogvideox as _cogvideox
from tiny_pipelines import flux as _flux
from tiny_pipelines import hunyuan as _hunyuan
from tiny_pipelines import image as _image
from tiny_pipelines import ltx as _ltx
from tiny_pipelines import qwen_image as _qwen_image
from tiny_pipelines import unet as _unet
from tiny_pipelines import wan as _wan
from tiny_pipelines.cogvideox import cogvideox
from tiny_pipelines.family import Family
from tiny_pipelines.flux import flux
from tiny_pipelines.hunyuan import hunyuan_video
from tiny_pipelines.wan import wan, wan22, wan_transformer

__all__ = [
    "FAMILIES",
    "Family",
    "cogvideox",
    "flux",
    "hunyuan_video",
    "wan",
    "wan22",
    "wan_transformer",
]

FAMILIES: dict[str, Family] = {
    family.name: family
    for group in (_wan, _ltx, _cogvideox, _hunyuan, _flux, _qwen_image, _image, _unet)
    for family in group.FAMILIES
}
