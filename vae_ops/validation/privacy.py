"""Whether synthetic rows betray training rows: copies, distances, membership, and single values that leaked.

`measure_privacy` gathers the evidence, `privacy_findings` weighs it; `gate.py` calls both. How close rows come is
measured in `closeness.py`, the attack is in `attacks.py`, single values are in `leaks.py`. `fidelity.py` asks how alike
the tables are: a copier is perfect there and is caught here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.schema import SemanticType
from vae_ops.settings import GateSettings
from vae_ops.validation.attacks import attack_membership, null_deviation
from vae_ops.validation.closeness import (
    DCR_REPEATS,
    DcrShare,
    are_near_copies,
    copy_shares,
    dcr_share,
    distance_histograms,
    median_ratio,
)
from vae_ops.validation.columns import encode_tables, quoted
from vae_ops.validation.evidence import (
    AttackEvidence,
    Distances,
    Finding,
    Interval,
    Leak,
    LeakCount,
    PrivacyEvidence,
)
from vae_ops.validation.leaks import EXTREME, RARE_CATEGORY, find_leaks
from vae_ops.validation.neighbours import NeighbourIndex, Places, measure_units, place_rows
from vae_ops.validation.weighing import Weighed, percent, weigh, widened

__all__ = ["measure_privacy", "privacy_findings"]

QUERIES = 5_000  # rows of each kind whose neighbours are looked for
INDEX_CELLS = 10_000_000  # rows × columns searched on each side: 80 MB, two seconds
DCR_QUERIES = 4_000
DCR_WORK = 1_200_000_000  # differences of two values, one to two seconds
SIGMAS = 2.0
Z95 = 1.959964
OUTLIERS_LOOSER = 2.0  # a tenth of the rows, the most exposed ones, may lie twice as far from chance
TELLING_ROWS = 1_000  # an attack on fewer rows is judged more loosely, by one over the root of the rows
FEWEST_COPIED = 10  # of fewer real rows any sampler can only repeat the values
SUSPICIOUSLY_FAR = 40.0  # a DCR share that no honest sampler has
NAMED_COLUMNS = 3
LESS_TRAINING = "Train fewer steps (train.steps) or on more rows."

NOT_TESTED = (
    "Linkability: whether rows of another data set can be joined to persons through these rows.",
    "Attribute inference: whether some columns of a person give the others away.",
    "Singling out: whether a few columns together isolate one person.",
    "Groups: the rows of one person or household count as rows that have nothing to do with each other.",
    "Repeated releases: what the snapshots of many nights betray together.",
    "The model itself: whoever holds its files can attack more than the rows.",
    "Differential privacy: there is no formal guarantee; all figures speak of the attacks tried here.",
)


# --- all evidence ----------------------------------------------------------------------------------------------------


def measure_privacy(
    training: pa.Table,
    holdout: pa.Table,
    synthetic: pa.Table,
    semantic_types: Mapping[str, SemanticType],
    *,
    seed: int,
    sample_rows: int,
    rare_rows: int = 5,
) -> PrivacyEvidence:
    """Gathers everything that is looked at, in bounded time, however large the tables are.

    Copies and single values are looked for among all training rows, near copies among all of up to ten million cells,
    the rest on fixed-seed samples; `sizes` tells. Deterministic for given rows and seed.

    Args:
        training: Rows that the generator was trained on, at least one.
        holdout: Real rows that it never saw.
        synthetic: Rows drawn from it, at least one.
        semantic_types: Columns to compare; identifiers are left out, unless there is nothing else.
        seed: Decides samples and projections.
        sample_rows: At most so many held-out and synthetic rows are checked for being copies.
        rare_rows: A category of fewer training rows should not be shown.

    Returns:
        The evidence; where the holdout is too small for a part, the part is empty and `not_tested` says so.
    """
    types = _compared(semantic_types)
    copies = _copies(training, holdout, synthetic, list(types), sample_rows, seed)
    most = max(INDEX_CELLS // max(len(types), 1), 1)
    samples = [_sampled(table, most, [seed, index]) for index, table in enumerate((training, holdout, synthetic))]
    places = place_rows(encode_tables(samples, types))
    near = _look_near(places, min(QUERIES, sample_rows), seed)
    dcr, dcr_queries = _affordable_dcr(places, seed)
    leaks, counts = find_leaks(training, synthetic, types, rare_rows=rare_rows)
    spread = 100 * Z95 * dcr.deviation
    return PrivacyEvidence(
        copy_percent=copies.synthetic,
        holdout_copy_percent=copies.holdout,
        real_copy_percent=copies.real,
        copy_noise_percent=copies.noise,
        near_copy_percent=near.copies.synthetic,
        holdout_near_copy_percent=near.copies.holdout,
        real_near_copy_percent=near.copies.real,
        near_copy_noise_percent=near.copies.noise,
        dcr_share_percent=100 * dcr.share,
        dcr_interval=Interval(max(0.0, 100 * dcr.share - spread), min(100.0, 100 * dcr.share + spread)),
        dcr_noise_percent=min(100.0, 50 + 100 * SIGMAS * dcr.deviation),
        nndr_synthetic=near.nndr_synthetic,
        nndr_holdout=near.nndr_holdout,
        distances=near.distances,
        attacks=near.attacks,
        leaks=leaks,
        leak_counts=counts,
        not_tested=NOT_TESTED + _left_out(semantic_types, types, near.attacks, dcr.rows),
        sizes={
            "training_rows_searched": len(places[0]),
            "synthetic_rows_searched": len(places[2]),
            "copies_synthetic_rows": copies.synthetic_rows,
            "copies_real_rows": copies.real_rows,
            "near_copies_synthetic_rows": near.copies.synthetic_rows,
            "near_copies_real_rows": near.copies.real_rows,
            "dcr_synthetic_rows": dcr_queries,
            "dcr_real_rows": dcr.rows,
        },
    )


def _compared(semantic_types: Mapping[str, SemanticType]) -> dict[str, SemanticType]:
    """Columns to compare: a copied row with a fresh identifier is a copy."""
    plain: dict[str, SemanticType] = {
        name: kind for name, kind in semantic_types.items() if kind is not SemanticType.IDENTIFIER
    }
    return plain or dict.fromkeys(semantic_types, SemanticType.CATEGORICAL)


def _sampled(table: pa.Table, most: int, seed: Sequence[int]) -> pa.Table:
    return table if table.num_rows <= most else table.take(_some(table.num_rows, most, seed))


def _some(rows: int, most: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """At most `most` of so many row numbers, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


@dataclass(frozen=True)
class _Copies:
    """Shares of copies, percent, and on how many rows they rest; `real` is held-out and training rows together."""

    synthetic: float
    holdout: float
    real: float
    synthetic_rows: int
    real_rows: int

    @property
    def noise(self) -> float:
        """Excess of the synthetic share that chance may cause, at the upper Wilson bound of the share of real rows."""
        share, rows, z = self.real / 100, max(self.real_rows, 1), SIGMAS
        centre, spread = share + z * z / (2 * rows), z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
        upper = min(1.0, (centre + spread) / (1 + z * z / rows))
        return min(100.0, 100 * z * math.sqrt(upper * (1 - upper) * (1 / max(self.synthetic_rows, 1) + 1 / rows)))


def _copies(
    training: pa.Table, holdout: pa.Table, synthetic: pa.Table, columns: Sequence[str], most: int, seed: int
) -> _Copies:
    unseen, drawn = _sampled(holdout, most, [seed, 11]), _sampled(synthetic, most, [seed, 12])
    shares = copy_shares(training, unseen, drawn, columns)
    rows = training.num_rows + unseen.num_rows
    real = (shares.training * training.num_rows + shares.holdout * unseen.num_rows) / max(rows, 1)
    return _Copies(100 * shares.synthetic, 100 * shares.holdout, 100 * real, drawn.num_rows, rows)


@dataclass(frozen=True)
class _Near:
    """What neighbours tell."""

    copies: _Copies
    nndr_synthetic: float
    nndr_holdout: float
    distances: Distances
    attacks: tuple[AttackEvidence, ...]


def _look_near(places: Sequence[Places], queries: int, seed: int) -> _Near:
    """Neighbours of rows of all three kinds; a training row, which is not its own neighbour, stands for a real one."""
    units = measure_units(places[0]).deviations
    training, holdout, synthetic = (part.scaled(units) for part in places)
    chosen = [_some(len(part), queries, [seed, 21 + index]) for index, part in enumerate(places)]
    members, unseen, drawn = (
        part.take(rows) for part, rows in zip((training, holdout, synthetic), chosen, strict=True)
    )
    real_index, synthetic_index = NeighbourIndex(training, seed=seed), NeighbourIndex(synthetic, seed=seed)
    to_real = [real_index.query(members, own=chosen[0]), real_index.query(unseen), real_index.query(drawn)]
    to_synthetic = [synthetic_index.query(part)[:, 0] for part in (members, unseen)]
    shown = to_real[1] if len(unseen) else to_real[0]
    return _Near(
        copies=_near_copies(*to_real),
        nndr_synthetic=median_ratio(to_real[2]),
        nndr_holdout=median_ratio(shown),
        distances=distance_histograms(to_real[2][:, 0], shown[:, 0]),
        attacks=attack_membership((to_real[0][:, 0], to_synthetic[0]), (to_real[1][:, 0], to_synthetic[1])),
    )


def _near_copies(members: NDArray[np.float64], unseen: NDArray[np.float64], drawn: NDArray[np.float64]) -> _Copies:
    real = np.concatenate([members, unseen])
    shares = [100 * float(are_near_copies(pair).mean()) if len(pair) else 0.0 for pair in (drawn, unseen, real)]
    return _Copies(shares[0], shares[1], shares[2], len(drawn), len(real))


def _affordable_dcr(places: Sequence[Places], seed: int) -> tuple[DcrShare, int]:
    """The share on as many rows as a few seconds allow, and the number of synthetic rows asked."""
    units = measure_units(places[0]).ranges
    queries, rows = min(DCR_QUERIES, len(places[2])), min(len(places[0]), len(places[1]))
    work = queries * rows * places[0].width * (DCR_REPEATS + 1)
    kept = min(1.0, math.sqrt(DCR_WORK / max(work, 1)))
    holdout = places[1].take(_some(len(places[1]), math.ceil(kept * rows), [seed, 31])).scaled(units)
    synthetic = places[2].take(_some(len(places[2]), math.ceil(kept * queries), [seed, 32])).scaled(units)
    return dcr_share(synthetic, places[0].scaled(units), holdout, seed=seed), len(synthetic)


def _left_out(
    semantic_types: Mapping[str, SemanticType],
    compared: Mapping[str, SemanticType],
    attacks: Sequence[AttackEvidence],
    dcr_rows: int,
) -> tuple[str, ...]:
    """What could not be looked at in these very tables."""
    missing = []
    if names := [quoted(name) for name in semantic_types if name not in compared]:
        more = f" and {len(names) - NAMED_COLUMNS} more" if len(names) > NAMED_COLUMNS else ""
        missing.append(f"Identifiers: {', '.join(names[:NAMED_COLUMNS])}{more} took part in no comparison.")
    groups = {attack.group for attack in attacks}
    missing += [
        f"Membership inference on {group}: too few held-out rows for a figure."
        for group in ("all rows", "outliers")
        if group not in groups
    ]
    if not dcr_rows:
        missing.append("Distance to the closest record: there are no held-out rows to compare with.")
    return tuple(missing)


# --- the findings ----------------------------------------------------------------------------------------------------


def privacy_findings(evidence: PrivacyEvidence, settings: GateSettings) -> list[Finding]:
    """Weighs the evidence against the limits; a limit of None leaves its finding out.

    Only excess counts: rows that keep away from the training rows are no worse for it, and real rows that no generator
    saw pass as synthetic ones.
    """
    judged = [
        _copy_finding(evidence, settings),
        _near_copy_finding(evidence, settings),
        _dcr_finding(evidence, settings),
        *(_attack_finding(attack, settings) for attack in evidence.attacks),
        *(_leak_finding(count, evidence.leaks, settings) for count in evidence.leak_counts),
    ]
    return [finding for finding in judged if finding is not None]


def _copy_finding(evidence: PrivacyEvidence, settings: GateSettings) -> Finding | None:
    if settings.max_copy_excess_percent is None or evidence.sizes["copies_real_rows"] < FEWEST_COPIED:
        return None
    shares = evidence.copy_percent, evidence.real_copy_percent
    rows = evidence.sizes["copies_synthetic_rows"], evidence.sizes["copies_real_rows"]
    value, interval = _excess(shares, rows)
    weighed = weigh(value, interval, evidence.copy_noise_percent, settings.max_copy_excess_percent, settings)
    sentence = _shares_told("equal a training row in every column", shares, weighed)
    remedy = f"Do not publish these rows: the generator repeats its source. {LESS_TRAINING}"
    return weighed.finding("copy_excess_percent", "privacy", sentence, remedy)


def _near_copy_finding(evidence: PrivacyEvidence, settings: GateSettings) -> Finding | None:
    few = evidence.sizes["near_copies_real_rows"] < FEWEST_COPIED
    if settings.max_near_copy_excess_percent is None or few:
        return None
    shares = evidence.near_copy_percent, evidence.real_near_copy_percent
    rows = evidence.sizes["near_copies_synthetic_rows"], evidence.sizes["near_copies_real_rows"]
    value, interval = _excess(shares, rows)
    weighed = weigh(value, interval, evidence.near_copy_noise_percent, settings.max_near_copy_excess_percent, settings)
    sentence = _shares_told("lie ten times nearer to one training row than to any other", shares, weighed)
    remedy = f"Do not publish these rows: they are training rows, and a little noise hides nobody. {LESS_TRAINING}"
    return weighed.finding("near_copy_excess_percent", "privacy", sentence, remedy)


def _excess(shares: tuple[float, float], rows: tuple[int, int]) -> tuple[float, Interval]:
    """By how much the synthetic rows' share, percent, exceeds that of real rows, and its interval."""
    parts = [share / 100 * (1 - share / 100) / max(count, 1) for share, count in zip(shares, rows, strict=True)]
    spread, difference = 100 * Z95 * math.sqrt(sum(parts)), shares[0] - shares[1]
    interval = Interval(max(0.0, difference - spread), min(100.0, max(0.0, difference + spread)))
    return max(0.0, difference), interval


def _shares_told(what: str, shares: tuple[float, float], weighed: Weighed) -> str:
    return (
        f"{percent(shares[0])} of the synthetic rows {what}, against {percent(shares[1])} of real rows: "
        f"{weighed.side} the limit of {percent(weighed.limit)} more (chance alone: up to {percent(weighed.noise)})."
    )


def _dcr_finding(evidence: PrivacyEvidence, settings: GateSettings) -> Finding | None:
    most, share = settings.max_dcr_share_percent, evidence.dcr_share_percent
    if most is None or not evidence.sizes["dcr_real_rows"]:
        return None
    weighed = weigh(share, evidence.dcr_interval, evidence.dcr_noise_percent, most, settings, perfect=50.0)
    sentence = (
        f"{percent(share)} of the synthetic rows lie nearer to a training row than to a held-out one, where 50 % is "
        f"perfect: {weighed.side} the limit of {percent(weighed.limit)}."
    )
    if share < SUSPICIOUSLY_FAR:
        sentence += " They lie so near to the held-out rows that these may be among them."
    return weighed.finding("dcr_share_percent", "privacy", sentence, LESS_TRAINING)


def _attack_finding(attack: AttackEvidence, settings: GateSettings) -> Finding | None:
    if settings.max_membership_auc is None:
        return None
    everybody = attack.group == "all rows"
    allowance = (settings.max_membership_auc - 0.5) * (1 if everybody else OUTLIERS_LOOSER)
    most = min(1.0, 0.5 + widened(allowance, attack.rows, TELLING_ROWS))
    noise = min(1.0, 0.5 + SIGMAS * null_deviation(attack.rows, attack.rows_holdout))
    weighed = weigh(attack.auc, attack.interval, noise, most, settings, perfect=0.5, highest=1.0)
    sentence = (
        "An attacker who sees the synthetic rows tells training rows from others"
        f"{'' if everybody else ' among outliers'} with an AUC of {attack.auc:.2f} where 0.5 is chance: "
        f"{weighed.side} the limit of {weighed.limit:.2f}."
    )
    remedy = f"{LESS_TRAINING} Protecting more rare categories (train.rare_category_rows) helps outliers."
    return weighed.finding("membership_auc" if everybody else "membership_auc_outliers", "privacy", sentence, remedy)


def _leak_finding(count: LeakCount, leaks: Sequence[Leak], settings: GateSettings) -> Finding | None:
    metric, most, what = {
        RARE_CATEGORY: ("rare_leak_percent", settings.max_rare_leak_percent, "categories that few training rows hold"),
        EXTREME: ("extreme_leak_percent", settings.max_extreme_leak_percent, "extremes that one training row holds"),
    }[count.kind]
    if most is None:
        return None
    weighed = weigh(100 * count.leaked / max(count.at_risk, 1), None, count.noise_percent, most, settings)
    columns = tuple(dict.fromkeys(leak.column for leak in leaks if leak.kind == count.kind))[:NAMED_COLUMNS]
    named = ", ".join(map(quoted, columns))
    sentence = (
        f"{count.leaked:,} of {count.at_risk:,} {what} occur among the synthetic rows{named and ', in '}{named}: "
        f"{weighed.side} the limit of {percent(weighed.limit)} of them (chance alone: up to "
        f"{percent(weighed.noise)})."
    )
    remedy = f"Protect {named}: raise train.rare_category_rows, or leave these columns out (read.exclude)."
    return weighed.finding(metric, "privacy", sentence, remedy, columns)
