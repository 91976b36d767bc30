"""Points of speed against fidelity: which are best, and how they are drawn."""

import re

import pytest

from sparsediff.ui.tradeoff import Point, frontier
from sparsediff.ui.tradeoff_chart import tradeoff


def point(speedup, psnr, *, density=0.2, method="adaspa"):
    return Point(
        method=method,
        density=density,
        realised=0.3,
        seconds=1.0,
        speedup=speedup,
        psnr=psnr,
        ssim=0.9,
    )


def test_the_frontier_is_what_no_other_beats():
    slow, fast, beaten = point(1.0, None), point(2.0, 25.0), point(1.5, 20.0)
    same = point(2.0, 25.0, density=0.3)
    assert frontier([fast, beaten, slow, same]) == [slow, fast, same]
    assert not fast.beats(same)
    assert slow.beats(point(1.0, 80.0))


def test_the_chart_shows_every_run_and_rings_the_last():
    points = [point(1.5, 20.0, density=0.1), point(0.7, None, method="<b>"), point(2.0, 31.0)]
    page = tradeoff(points)
    assert page.count('class="best"') == 2
    assert page.count('class="beaten"') == 1
    ring = re.search(r'class="chosen" cx="([\d.]+)" cy="([\d.]+)"', page).groups()
    last = re.findall(r'class="best" cx="([\d.]+)" cy="([\d.]+)"', page)[-1]
    assert ring == last
    assert "<b>" not in page
    assert page.index("2.00x") < page.rindex("1.50x")  # the table begins with the last run


@pytest.mark.parametrize("points", [[point(1.0, None)], [point(0.1, 3.0), point(9.0, 60.0)]])
def test_every_point_lies_inside(points):
    for x, y in re.findall(r'<circle class="\w+" cx="([-\d.]+)" cy="([-\d.]+)"', tradeoff(points)):
        assert 48 <= float(x) <= 624
        assert 22 <= float(y) <= 260


def test_nothing_yet():
    assert "<svg" not in tradeoff(())
