"""Frames survive the way into a file and back."""

import io
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from sparsediff.kernels.errors import SparseError
from sparsediff.media import enlarge, png, shrink, to_uint8, write_frames


def _ramp(frames=6, height=32, width=48):
    """A smooth video: compression keeps it, and every frame differs."""
    t, y, x = (torch.linspace(0, 1, n) for n in (frames, height, width))
    grey = 0.2 + 0.3 * t[:, None, None] + 0.2 * y[None, :, None] + 0.2 * x[None, None]
    return grey[..., None].expand(-1, -1, -1, 3)


def _read_mp4(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    shape = (height, width, 3)
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(shape) for frame in reader])


def test_mp4_keeps_size_frames_rate_and_pictures(tmp_path):
    video = _ramp()
    meta, back = _read_mp4(write_frames(video, tmp_path / "v.mp4", fps=8))
    assert back.shape == (6, 32, 48, 3)
    assert meta["fps"] == pytest.approx(8)
    assert meta["codec"].startswith("h264")
    assert "yuv420p" in meta["pix_fmt"]
    assert np.abs(back.astype(int) - to_uint8(video)).max() <= 6


def test_mp4_pads_odd_sides_by_one(tmp_path):
    _, back = _read_mp4(write_frames(_ramp(height=31, width=47), tmp_path / "v.mp4", fps=8))
    assert back.shape == (6, 32, 48, 3)


def test_gif_holds_every_frame(tmp_path):
    with Image.open(write_frames(_ramp(), tmp_path / "v.gif", fps=10)) as gif:
        assert gif.n_frames == 6
        assert gif.size == (48, 32)
        assert gif.info["duration"] == 100


def test_png_is_exact(tmp_path):
    picture = torch.rand(1, 9, 7, 3, generator=torch.Generator().manual_seed(0))
    path = write_frames(picture, tmp_path / "p.png", fps=1)
    assert np.array_equal(np.asarray(Image.open(path)), to_uint8(picture)[0])
    assert Image.open(io.BytesIO(png(to_uint8(picture)[0]))).size == (7, 9)


@pytest.mark.parametrize(("frames", "name"), [(6, "v.png"), (6, "v.txt"), (1, "v.txt")])
def test_other_files_are_refused(tmp_path, frames, name):
    with pytest.raises(SparseError, match=name):
        write_frames(_ramp(frames=frames), tmp_path / name, fps=8)
    assert not (tmp_path / name).exists()


def test_a_video_that_a_full_disk_cuts_short_is_an_error(tmp_path, monkeypatch):
    """As a real full disk does: ffmpeg begins the file, ends quietly, leaves no table of frames."""
    whole = write_frames(_ramp(), tmp_path / "whole.mp4", fps=8).read_bytes()
    assert whole[4:8] == b"ftyp"

    def cut_short(path, *_, **__):
        Path(path).write_bytes(whole[: len(whole) // 2])
        while True:
            yield

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", cut_short)
    with pytest.raises(SparseError, match=r"v\.mp4 could not be written whole"):
        write_frames(_ramp(), tmp_path / "v.mp4", fps=8)


def test_enlarge_repeats_and_shrink_averages():
    video = _ramp(height=4, width=6)
    large = enlarge(video, 10)
    assert large.shape == (6, 12, 18, 3)
    assert torch.equal(large[:, ::3, ::3], video)
    assert torch.allclose(shrink(large, 6), video, atol=1e-6)
    assert shrink(video, 100) is video
