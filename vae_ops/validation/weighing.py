"""How much a metric weighs: its limit as a multiple of the noise floor, its share of it, and what alone it decides.

`noise_floor.py` measures the floor, `GateSettings` holds multiple and allowances, `findings.py` puts the outcome in
words.
"""

import math
from dataclasses import dataclass
from typing import Literal

from vae_ops.settings import GateSettings
from vae_ops.validation.evidence import Finding, Interval, Verdict

__all__ = ["HEAVIEST", "Weighed", "digits", "percent", "weigh", "widened"]

HEAVIEST = 1000.0  # where nothing is allowed beyond chance, any excess is infinitely much, which JSON cannot say


@dataclass(frozen=True)
class Weighed:
    """One value against its limit.

    Attributes:
        value: Measured.
        interval: Of the value.
        perfect: What the metric is at best.
        noise: What chance alone may cause.
        limit: The value from which on it is no longer a pass.
        borderline: Multiple of the distance between floor and limit that still is borderline.
    """

    value: float
    interval: Interval | None
    perfect: float
    noise: float
    limit: float
    borderline: float

    @property
    def weight(self) -> float:
        """0 at perfect, 1 at the limit, and 1 more for every further distance between floor and limit."""
        if self.value <= self.limit:
            return max(0.0, self.value - self.perfect) / max(self.limit - self.perfect, 1e-12)
        if self.is_chance:
            return 1.0
        allowed = self.limit - self.noise
        return min(HEAVIEST, 1 + (self.value - self.limit) / allowed) if allowed > 0 else HEAVIEST

    @property
    def is_chance(self) -> bool:
        """Whether the rows cannot tell the value from one that a perfect sampler may score."""
        return self.value <= self.noise or (self.interval is not None and self.interval.low <= self.noise)

    @property
    def verdict(self) -> Verdict:
        """What this value alone decides; nothing fails whose interval reaches down to the limit."""
        if self.value <= self.limit or self.is_chance:
            return "pass"
        certain = self.interval is None or self.interval.low > self.limit
        return "fail" if certain and self.weight > self.borderline else "borderline"

    @property
    def side(self) -> str:
        """On which side of the limit the value lies, for a sentence."""
        if self.value <= self.limit:
            return "within"
        return "over, but for so few rows not provably over," if self.is_chance else "over"

    def finding(
        self,
        metric: str,
        aspect: Literal["fidelity", "privacy"],
        sentence: str,
        remedy: str,
        columns: tuple[str, ...] = (),
    ) -> Finding:
        """The value as a finding; a pass needs no remedy."""
        return Finding(
            metric=metric,
            aspect=aspect,
            verdict=self.verdict,
            value=self.value,
            interval=self.interval,
            noise=self.noise,
            limit=self.limit,
            weight=self.weight,
            sentence=sentence,
            remedy="" if self.verdict == "pass" else remedy,
            columns=columns,
        )


def widened(allowance: float, rows: int, enough: int) -> float:
    """What is allowed on so few rows: more by one over their root, below the number of rows that is enough."""
    return allowance * max(1.0, math.sqrt(enough / max(rows, 1)))


def percent(value: float) -> str:
    """A percentage for a sentence."""
    return f"{digits(value)} %"


def digits(value: float) -> str:
    """A number for a sentence, with as many digits as say something."""
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.01 else f"{value:.0g}" if value >= 0.001 else "0"


def weigh(
    value: float,
    interval: Interval | None,
    noise: float,
    most: float,
    settings: GateSettings,
    *,
    perfect: float = 0.0,
    highest: float = 100.0,
) -> Weighed:
    """Weighs a value against its limit.

    The limit is a multiple of the noise floor, but no less than the setting, so that the narrow floor of a large table
    makes no fault of what nobody would notice, and no more than floor and setting together, so that the wide floor of a
    small one excuses nothing but noise.

    Args:
        value: Measured between real and synthetic rows.
        interval: Of the value.
        noise: What the metric may reach between real rows by chance.
        most: The setting: how high the metric may be where chance does nothing.
        settings: Multiple of the floor, and where borderline ends.
        perfect: What the metric is at best.
        highest: What it is at worst.
    """
    floor, allowance = max(0.0, noise - perfect), most - perfect
    reach = min(max(settings.noise_multiple * floor, allowance), floor + allowance)
    return Weighed(value, interval, perfect, noise, min(highest, perfect + reach), settings.borderline)
