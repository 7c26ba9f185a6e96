"""Presets of the gate: what strict and lenient mean beside the standard."""

import dataclasses
from typing import Any

import pytest

from vae_ops.errors import SettingsError
from vae_ops.settings import GATE_PRESETS, GateSettings, RunSettings
from vae_ops_provider.rendering import named_settings, parse_settings

STANDARD = GateSettings()
PERFECT = {"max_c2st_auc": 0.5, "max_dcr_share_percent": 50.0, "max_membership_auc": 0.5}
PRIVACY = ("copy", "near_copy", "dcr", "membership", "leak")


def preset(name: str) -> GateSettings:
    return GateSettings.from_dict({"strictness": name})


def distances(settings: GateSettings) -> dict[str, float]:
    """How far each limit is from perfect."""
    limits = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name.startswith("max_")}
    return {name: limit - PERFECT.get(name, 0.0) for name, limit in limits.items() if limit is not None}


def test_the_standard_is_the_default() -> None:
    assert preset("standard") == STANDARD == GateSettings.from_dict({})


def test_strict_is_stricter_in_every_limit_and_lenient_more_lenient_in_fidelity_alone() -> None:
    standard, strict, lenient = (distances(preset(name)) for name in ("standard", "strict", "lenient"))
    assert standard.keys() == strict.keys() == lenient.keys()
    for name, distance in standard.items():
        assert strict[name] < distance, name
        if any(word in name for word in PRIVACY):
            assert lenient[name] == distance, name
        else:
            assert lenient[name] > distance, name


def test_single_limits_win_over_the_preset() -> None:
    gate = RunSettings.from_dict({"gate": {"strictness": "strict", "max_c2st_auc": 0.7}}).gate
    assert (gate.max_c2st_auc, gate.max_shape_error_percent) == (0.7, 1.5)


def test_the_record_says_the_limits_themselves() -> None:
    strict = RunSettings.from_dict({"gate": {"strictness": "strict"}})
    assert strict.to_dict()["gate"]["max_c2st_auc"] == GATE_PRESETS["strict"]["max_c2st_auc"]
    assert RunSettings.from_dict(strict.to_dict()) == strict


@pytest.mark.parametrize("name", ["severe", "", 1, None, ["strict"]])
def test_an_unknown_preset_is_refused(name: Any) -> None:
    with pytest.raises(SettingsError, match="strictness expects one of 'standard', 'strict', 'lenient', got"):
        preset(name)


@pytest.mark.parametrize(("rendered", "meant"), [("strict", "strict"), ("None", "standard"), (None, "standard")])
def test_the_form_decides_under_further_settings(rendered: str | None, meant: str) -> None:
    named = named_settings(
        rows=None, ratio=None, target=None, exclude=(), seed=None, time_budget_seconds=None, strictness=rendered
    )
    settings = parse_settings([named, "{'gate': {'borderline': 2}}"])
    assert settings.gate == dataclasses.replace(preset(meant), borderline=2.0)
