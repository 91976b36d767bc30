"""Probing finds the best density of a figure that only runs can tell, in few runs."""

import math

import pytest

from sparsediff.pattern_search.probing import ROUNDS, Probe, Target

LEAST = 0.05


def _psnr(density):
    return 38 + 9 * math.log(density)


def _speed(density):
    return 1 / (0.4 + 0.6 * density)


def _probed(target, figure, first=0.3):
    probes = []
    while (density := target.next(probes, first)) is not None:
        assert LEAST <= density <= 1
        assert density not in [probe.density for probe in probes]
        probes.append(Probe(density=density, figure=figure(density)))
    assert 1 <= len(probes) <= ROUNDS
    return probes


@pytest.mark.parametrize("value", [12.0, 20.0, 25.0, 30.0, 36.5])
def test_the_cheapest_density_of_a_psnr(value):
    target = Target(value=value, rising=True, least=LEAST)
    found = target.best(_probed(target, _psnr)).density
    exact = math.exp((value - 38) / 9)
    assert 0.999 * exact <= found <= 1.09 * exact


@pytest.mark.parametrize("value", [1.02, 1.3, 1.8, 2.2])
def test_the_highest_density_of_a_speed(value):
    target = Target(value=value, rising=False, least=LEAST)
    found = target.best(_probed(target, _speed)).density
    exact = (1 / value - 0.4) / 0.6
    assert exact / 1.09 <= found <= 1.001 * exact


def test_a_psnr_that_only_dense_attention_has():
    target = Target(value=60, rising=True, least=LEAST)
    probes = _probed(target, _psnr)
    assert target.best(probes) is None
    assert max(probe.density for probe in probes) > 0.9


def test_a_speed_that_no_plan_has_is_known_after_the_cheapest():
    target = Target(value=3, rising=False, least=LEAST)
    probes = _probed(target, _speed)
    assert target.best(probes) is None
    assert [probe.density for probe in probes] == [0.3, LEAST]


def test_the_cheapest_plan_is_tried_when_everything_meets_the_target():
    target = Target(value=5, rising=True, least=LEAST)
    assert target.best(_probed(target, _psnr)).density < 1.3 * LEAST


def test_a_video_equal_to_the_dense_one_is_no_place_on_a_line():
    target = Target(value=30, rising=True, least=LEAST)
    probes = _probed(target, lambda density: math.inf if density > 0.5 else 20.0)
    assert 0.5 < target.best(probes).density < 0.56


def test_noise_that_turns_the_order_round_does_no_harm():
    target = Target(value=1.5, rising=False, least=LEAST)
    probes = [Probe(density=0.3, figure=1.4), Probe(density=0.5, figure=1.6)]
    assert 0.5 < target.next(probes, 0.3) <= 1
