"""What a night does with the model it finds: reuse it, refresh it, or train one from nothing; and why.

A pure function of what is known before training: the champion's record, what moved since (`drift/`) and the settings.
`registry.py` keeps the champion, `steps.py` acts on the decision.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from vae_ops.drift import Drift
from vae_ops.errors import UsageError
from vae_ops.settings import RefreshSettings, RunSettings

__all__ = ["Decision", "Past", "decide", "learning_digest"]

# Settings of reading that decide which rows a model sees, but not what it is.
_NOT_LEARNED = ("incremental", "synthetic")


@dataclass(frozen=True)
class Decision:
    """What to do, and one sentence that says why."""

    kind: Literal["reuse", "refresh", "retrain"]
    reason: str


@dataclass(frozen=True)
class Past:
    """What is known of the champion.

    Attributes:
        version: Its version.
        settings_digest: `learning_digest` of the settings it was trained with.
        code_version: Version of vae-ops that trained it.
        trained_at: When its line of refreshes began with a model trained from nothing, UTC.
        refreshes: How many refreshes ago that was.
        failed_refresh: Whether a refresh of it has lost against it.
    """

    version: str
    settings_digest: str
    code_version: str
    trained_at: datetime
    refreshes: int
    failed_refresh: bool


def learning_digest(settings: RunSettings) -> str:
    """Digest of the settings that decide what a model learns."""
    read = {name: value for name, value in settings.read.to_dict().items() if name not in _NOT_LEARNED}
    text = json.dumps([read, settings.train.to_dict()], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def decide(
    past: Past | None, drift: Drift | None, settings: RunSettings, *, code_version: str, now: datetime | None = None
) -> Decision:
    """Decides what tonight's run does.

    Args:
        past: The champion; None on a first night.
        drift: What moved since it learned; None on a first night.
        settings: All choices of the run.
        code_version: Version of vae-ops that runs.
        now: UTC time; by default the clock's.

    Raises:
        UsageError: Reuse is asked for, but there is no model, or none of this schema.
    """
    mode = settings.refresh.mode
    unfit = _why_unfit(past, drift)
    if unfit:
        if mode == "reuse":
            raise UsageError(f"refresh.mode is 'reuse', but {unfit}: set it to 'auto' or 'retrain'.")
        return Decision("retrain", _sentence(unfit))
    assert past is not None
    assert drift is not None
    if mode != "auto":
        return Decision(mode, f"The setting refresh.mode asks for it; the drift is {drift.movement}.")
    return _by_rule(past, drift, settings, code_version, now or datetime.now(UTC))


def _why_unfit(past: Past | None, drift: Drift | None) -> str:
    """Why the champion cannot even be asked for these rows; empty if it can."""
    if past is None or drift is None:
        return "there is no model of an earlier night"
    return _first(drift) if drift.movement == "schema" else ""


def _by_rule(past: Past, drift: Drift, settings: RunSettings, code_version: str, now: datetime) -> Decision:
    refresh = settings.refresh
    if past.settings_digest != learning_digest(settings):
        return Decision("retrain", f"Settings of reading or training have changed since model {past.version}.")
    if past.code_version != code_version:
        return Decision("retrain", f"vae-ops {past.code_version} trained model {past.version}; this is {code_version}.")
    age = (now - past.trained_at).total_seconds() / 86_400
    if refresh.max_age_days is not None and age > refresh.max_age_days:
        return Decision("retrain", f"The model was trained from nothing {age:.0f} days ago: older than it may get.")
    if drift.movement == "quiet":
        return Decision("reuse", f"Nothing has moved beyond chance since model {past.version} learned.")
    return _train(past, drift, refresh)


def _train(past: Past, drift: Drift, refresh: RefreshSettings) -> Decision:
    if drift.movement in ("large", "broken"):
        return Decision("retrain", _sentence(_first(drift)))
    if past.failed_refresh:
        return Decision("retrain", f"A refresh of model {past.version} lost against it, and still: {_first(drift)}.")
    if refresh.max_refreshes is not None and past.refreshes >= refresh.max_refreshes:
        return Decision("retrain", f"The model has been refreshed {past.refreshes} times, and now: {_first(drift)}.")
    return Decision("refresh", _sentence(_first(drift)))


def _first(drift: Drift) -> str:
    """What moved most, and how much else did, without the full stop."""
    first, *others = drift.sentences
    more = f" (and {len(others)} more)" if others else ""
    return first.rstrip(".") + more


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
