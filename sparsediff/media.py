"""Media: frames to mp4, gif and png files and back, and to bytes for a report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.errors import SparseError

VIDEO_SUFFIXES = (".mp4", ".gif")
_TYPES = {
    ".mp4": "video/mp4",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}


def write_frames(frames: Tensor, path: Path, *, fps: int) -> Path:
    """Write ``[f, h, w, 3]`` frames in [0, 1] as .mp4, .gif or, for one frame, .png.

    An mp4 is H.264 in the pixel format every player knows, which needs even sides: an odd one repeats
    its last row or column. Raises SparseError for another suffix, a .png of several frames, and an mp4
    that a full disk cut short.
    """
    suffix = path.suffix.lower()
    pixels = to_uint8(frames)
    if suffix == ".mp4":
        _write_mp4(pixels, path, fps)
    elif suffix == ".gif":
        _write_gif(pixels, path, fps)
    elif suffix == ".png" and len(pixels) == 1:
        path.write_bytes(png(pixels[0]))
    else:
        what = f"{len(pixels)} frames" if len(pixels) > 1 else "a picture"
        raise SparseError(
            f"{what} cannot be written as {path.name}; needs .mp4 or .gif for a video, .png for a "
            f"picture."
        )
    return path


def read_frames(path: Path) -> Tensor:
    """The frames of an .mp4 or .png file: float ``[f, h, w, 3]`` in [0, 1].

    Raises SparseError when it is no such file.
    """
    try:
        pixels = _read_png(path) if path.suffix.lower() == ".png" else _read_mp4(path)
    except (OSError, RuntimeError, StopIteration, ValueError) as error:
        raise SparseError(f"{path} could not be read as a video or a picture.") from error
    return torch.from_numpy(pixels).float() / 255


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """Frames in [0, 1] as bytes, rounded to nearest."""
    pixels = (frames.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    result: NDArray[np.uint8] = pixels.cpu().numpy()
    return result


def enlarge(frames: Tensor, least: int) -> Tensor:
    """Repeat pixels a whole number of times until both sides have at least `least` of them."""
    times = max(1, -(-least // min(frames.shape[1], frames.shape[2])))
    return frames.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)


def shrink(frames: Tensor, most: int) -> Tensor:
    """Average pixels down until no side has more than `most` of them."""
    height, width = frames.shape[1:3]
    factor = most / max(height, width)
    if factor >= 1:
        return frames
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = functional.interpolate(frames.permute(0, 3, 1, 2).float(), size=size, mode="area")
    return small.permute(0, 2, 3, 1)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One picture ``[h, w]``, ``[h, w, 3]`` or ``[h, w, 4]`` as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """One picture ``[h, w, 3]`` as JPEG: small, for previews only."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82)
    return buffer.getvalue()


def data_uri(content: bytes, suffix: str) -> str:
    """A file as an address that a page can hold inside itself."""
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"


def _write_mp4(pixels: NDArray[np.uint8], path: Path, fps: int) -> None:
    import imageio_ffmpeg

    odd = [(0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)]
    even = np.ascontiguousarray(np.pad(pixels, odd, mode="edge"))
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (even.shape[2], even.shape[1]),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=1,  # never resize
        quality=None,
        output_params=["-crf", "12", "-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in even:
            writer.send(frame)
    finally:
        writer.close()
    if not _is_whole(path):
        raise SparseError(
            f"{path.name} could not be written whole; the disk may be full. Make room on it, then run "
            f"this again."
        )


def _is_whole(path: Path) -> bool:
    """Whether an mp4 has its table of frames and all its parts: ffmpeg ends quietly on a full disk."""
    kinds, at, size = set(), 0, path.stat().st_size
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # too large for four bytes
                length = int.from_bytes(head[8:], "big")
            if length < 8:
                return False
            kinds.add(head[4:8])
            at += length
    return at == size and {b"moov", b"mdat"} <= kinds


def _read_mp4(path: Path) -> NDArray[np.uint8]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames)


def _read_png(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))[None]


def _write_gif(pixels: NDArray[np.uint8], path: Path, fps: int) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )
