"""What a night decides, by what it finds; each rule alone, and which of them comes first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vae_ops.decision import Past, decide, learning_digest
from vae_ops.drift import ColumnDrift, Drift, Movement
from vae_ops.errors import UsageError
from vae_ops.settings import RunSettings

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SETTINGS = RunSettings()
PAST = Past("v1", learning_digest(SETTINGS), "1.0", NOW - timedelta(days=1), 0, failed_refresh=False)


def drift(movement: Movement) -> Drift:
    columns = (ColumnDrift("age", "quantiles", 0.2, 0.01, movement, "Column 'age' has moved."),)
    return Drift(movement, 1000, 1000, columns if movement != "quiet" else (), ())


def decided(movement: Movement, past: Past | None = PAST, **refresh: Any) -> tuple[str, str]:
    settings = RunSettings.from_dict({"refresh": refresh})
    found = decide(past, drift(movement), settings, code_version="1.0", now=NOW)
    return found.kind, found.reason


@pytest.mark.parametrize(
    ("movement", "kind"), [("quiet", "reuse"), ("moved", "refresh"), ("large", "retrain"), ("schema", "retrain")]
)
def test_the_drift_decides(movement: Movement, kind: str) -> None:
    found, reason = decided(movement)
    assert found == kind
    assert reason == ("Nothing has moved beyond chance since model v1 learned." if kind == "reuse" else
                      "Column 'age' has moved.")  # fmt: skip


def test_a_first_night_trains() -> None:
    found = decide(None, None, SETTINGS, code_version="1.0", now=NOW)
    assert (found.kind, found.reason) == ("retrain", "There is no model of an earlier night.")


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        (replace(PAST, settings_digest="other"), "Settings of reading or training have changed since model v1."),
        (replace(PAST, code_version="0.9"), "vae-ops 0.9 trained model v1; this is 1.0."),
        (replace(PAST, trained_at=NOW - timedelta(days=31)), "The model was trained from nothing 31 days ago"),
    ],
)
def test_what_ends_a_model_however_quiet_the_night(past: Past, reason: str) -> None:
    kind, found = decided("quiet", past)
    assert kind == "retrain"
    assert reason in found


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        (replace(PAST, failed_refresh=True), "A refresh of model v1 lost against it, and still: Column 'age' has"),
        (replace(PAST, refreshes=14), "The model has been refreshed 14 times, and now: Column 'age' has moved."),
    ],
)
def test_what_turns_a_refresh_into_a_training_and_leaves_a_quiet_night_alone(past: Past, reason: str) -> None:
    kind, found = decided("moved", past)
    assert kind == "retrain"
    assert found.startswith(reason)
    assert decided("quiet", past)[0] == "reuse"


@pytest.mark.parametrize("mode", ["reuse", "refresh", "retrain"])
@pytest.mark.parametrize("movement", ["quiet", "moved", "large"])
def test_each_can_be_forced(mode: str, movement: Movement) -> None:
    assert decided(movement, mode=mode) == (mode, f"The setting refresh.mode asks for it; the drift is {movement}.")


def test_what_cannot_be_forced() -> None:
    assert decided("schema", mode="refresh")[0] == "retrain"
    with pytest.raises(UsageError, match=r"mode is 'reuse', but Column 'age' has moved"):
        decided("schema", mode="reuse")
    with pytest.raises(UsageError, match="there is no model of an earlier night"):
        decided("quiet", None, mode="reuse")


def test_limits_can_be_switched_off() -> None:
    old = replace(PAST, trained_at=NOW - timedelta(days=4000), refreshes=1000)
    assert decided("moved", old, max_age_days=None, max_refreshes=None)[0] == "refresh"


def test_a_clock_that_went_back_makes_no_model_old() -> None:
    assert decided("quiet", replace(PAST, trained_at=NOW + timedelta(days=400)))[0] == "reuse"


def test_only_settings_of_learning_count() -> None:
    same = [{"gate": {"borderline": 2.0}}, {"generate": {"seed": 3}}, {"read": {"incremental": True}}]
    other = [{"train": {"seed": 1}}, {"read": {"exclude": ["a"]}}, {"train": {"time_budget_seconds": 5}}]
    digests = [learning_digest(RunSettings.from_dict(values)) for values in same + other]
    assert [digest == learning_digest(SETTINGS) for digest in digests] == [True] * 3 + [False] * 3
