"""Limits are multiples of the floor within reason; intervals decide between borderline and fail."""

import pytest

from vae_ops.errors import SettingsError
from vae_ops.settings import GateSettings
from vae_ops.validation.evidence import Interval
from vae_ops.validation.weighing import HEAVIEST, Weighed, weigh, widened

SETTINGS = GateSettings(noise_multiple=4.0, borderline=1.5)


def weighed(value: float, noise: float = 1.0, most: float = 3.0, interval: Interval | None = None) -> Weighed:
    return weigh(value, interval, noise, most, SETTINGS)


@pytest.mark.parametrize(
    ("noise", "limit"),
    [(0.0, 3.0), (0.5, 3.0), (0.9, 3.6), (1.0, 4.0), (2.0, 5.0), (40.0, 43.0), (99.0, 100.0)],
)
def test_a_limit_is_a_multiple_of_the_floor_within_reason(noise: float, limit: float) -> None:
    assert weighed(0.0, noise).limit == pytest.approx(limit)


def test_the_distance_from_perfect_counts() -> None:
    found = weigh(0.6, None, 0.54, 0.75, SETTINGS, perfect=0.5, highest=1.0)
    assert found.limit == pytest.approx(0.75)
    assert found.weight == pytest.approx(0.4)


def test_weight_rises_from_perfect_over_the_limit() -> None:
    assert [weighed(value).weight for value in (0.0, 2.0, 4.0, 5.5)] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert weighed(1.5, most=0.0).weight == HEAVIEST


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [
        (3.9, None, "pass"),
        (4.1, None, "borderline"),
        (5.4, Interval(5.0, 5.8), "borderline"),
        (5.6, Interval(5.0, 6.0), "fail"),
        (5.6, Interval(3.9, 7.0), "borderline"),
        (9.0, Interval(0.9, 17.0), "pass"),
    ],
)
def test_nothing_fails_that_the_rows_cannot_tell(value: float, interval: Interval | None, verdict: str) -> None:
    assert weighed(value, interval=interval).verdict == verdict


def test_off_switches_off_and_none_does_too() -> None:
    for off in ("off", None):
        settings = GateSettings.from_dict({"max_column_error_percent": off})
        assert settings.max_column_error_percent is None
        assert GateSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(SettingsError, match="noise_multiple expects float, got 'off'"):
        GateSettings.from_dict({"noise_multiple": "off"})
    with pytest.raises(SettingsError, match="expects float, got 'of'"):
        GateSettings.from_dict({"max_column_error_percent": "of"})


def test_few_rows_widen_what_is_allowed_and_many_do_not() -> None:
    assert widened(3.0, rows=500, enough=2_000) == pytest.approx(6.0)
    assert widened(3.0, rows=2_000, enough=2_000) == widened(3.0, rows=10**6, enough=2_000) == 3.0
    assert widened(3.0, rows=0, enough=4) == pytest.approx(6.0)
