"""PSNR, SSIM and flicker against analytic values and an independent implementation."""

import math

import numpy as np
import pytest
import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.quality import flicker, psnr, quality, ssim


def _video(frames=3, height=24, width=20, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def _ssim_slow(a, b):
    """SSIM by its definition: one weighted window at a time, plain numpy."""
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        for c in range(x.shape[2]):
            for i in range(x.shape[0] - 10):
                for j in range(x.shape[1] - 10):
                    p, q = x[i : i + 11, j : j + 11, c], y[i : i + 11, j : j + 11, c]
                    mp, mq = (window * p).sum(), (window * q).sum()
                    vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                    cov = (window * (p - mp) * (q - mq)).sum()
                    top = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
                    values.append(top / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


def test_identical_videos_are_perfect():
    video = _video()
    figures = quality(video, video.clone())
    assert math.isinf(figures.psnr)
    assert figures.identical
    assert figures.ssim == pytest.approx(1.0, abs=1e-12)
    assert figures.flicker == 0


@pytest.mark.parametrize("level", [0.1, 0.01, 0.003])
def test_psnr_of_a_known_error(level):
    video = _video() * 0.5
    assert psnr(video, video + level) == pytest.approx(-20 * math.log10(level), abs=1e-3)


def test_psnr_of_gaussian_noise():
    base = torch.full((4, 64, 64, 3), 0.5, dtype=torch.float64)
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert psnr(base, base + 0.02 * noise) == pytest.approx(20 * math.log10(50), abs=0.1)


def test_psnr_averages_the_error_before_the_logarithm():
    base = torch.zeros(2, 16, 16, 1)
    one_broken = base.clone()
    one_broken[1] = 0.2
    assert psnr(base, one_broken) == pytest.approx(-10 * math.log10(0.04 / 2), abs=1e-5)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_ssim_equals_the_definition(noise):
    a = _video(frames=2, height=15, width=14)
    b = (a + noise * torch.randn(a.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    assert ssim(a, b) == pytest.approx(_ssim_slow(a, b), abs=1e-9)


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = torch.full((1, 16, 16, 3), 0.25), torch.full((1, 16, 16, 3), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_ssim_takes_pictures_smaller_than_the_window():
    a = _video(height=6, width=5)
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(a, 1 - a) < 0.5


def test_flicker_is_the_mean_step_between_frames():
    ramp = torch.linspace(0, 0.8, 5).reshape(5, 1, 1, 1).expand(5, 8, 8, 3)
    assert flicker(ramp) == pytest.approx(0.2, abs=1e-6)
    assert flicker(ramp[:1]) == 0
    still = torch.full((5, 8, 8, 3), 0.4)
    assert quality(still, ramp).flicker == pytest.approx(0.2, abs=1e-6)
    assert quality(ramp, still).flicker == pytest.approx(-0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (_video(), _video(frames=4), "one size"),
        (_video()[0], _video()[0], "height"),
        (_video() * 3, _video(), r"\[0, 1\]"),
        (_video() * float("nan"), _video(), "nan"),
        ((_video() * 255).to(torch.uint8), _video(), "uint8"),
    ],
)
def test_what_is_not_a_pair_of_videos_is_refused(a, b, words):
    with pytest.raises(SparseError, match=words):
        quality(a, b)
