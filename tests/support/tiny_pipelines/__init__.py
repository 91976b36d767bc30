"""Real diffusers pipelines at toy size with random weights, built without any download.

Random weights rank sparse methods backwards, so nothing here may judge quality: these pipelines show
that the right path ran and that dense results are unchanged.
"""

from tiny_pipelines import allegro as _allegro
from tiny_pipelines import cogvideox as _cogvideox
from tiny_pipelines import cosmos as _cosmos
from tiny_pipelines import easyanimate as _easyanimate
from tiny_pipelines import flux as _flux
from tiny_pipelines import framepack as _framepack
from tiny_pipelines import hunyuan as _hunyuan
from tiny_pipelines import hunyuan15 as _hunyuan15
from tiny_pipelines import image as _image
from tiny_pipelines import kandinsky5 as _kandinsky5
from tiny_pipelines import latte as _latte
from tiny_pipelines import ltx as _ltx
from tiny_pipelines import ltx2 as _ltx2
from tiny_pipelines import mochi as _mochi
from tiny_pipelines import qwen_image as _qwen_image
from tiny_pipelines import skyreels as _skyreels
from tiny_pipelines import text_first as _text_first
from tiny_pipelines import unet as _unet
from tiny_pipelines import wan as _wan
from tiny_pipelines import wan_kin as _wan_kin
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
    for group in (
        _wan,
        _wan_kin,
        _skyreels,
        _ltx,
        _ltx2,
        _cogvideox,
        _hunyuan,
        _hunyuan15,
        _framepack,
        _mochi,
        _cosmos,
        _allegro,
        _easyanimate,
        _kandinsky5,
        _latte,
        _flux,
        _qwen_image,
        _image,
        _text_first,
        _unet,
    )
    for family in group.FAMILIES
}
