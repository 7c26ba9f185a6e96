"""Utility: what a model learns of the target from synthetic rows, alone (TSTR) or added to real ones (the dose curve).

Boosted trees are fitted on real rows, on synthetic rows, and on real rows with more and more parts synthetic; all are
scored on the half of the holdout that the generator never saw. `target.py` reads the target, `scores.py` resamples the
scores; `steps.py` draws the rows and `gate.py` weighs the finding.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from vae_ops.holdout import halve_holdout
from vae_ops.schema import SemanticType
from vae_ops.settings import UtilitySettings
from vae_ops.validation.columns import CategoryColumn, NumberColumn, align_table, encode_tables, quoted
from vae_ops.validation.evidence import DoseCurve, DosePoint, Finding, Interval, UtilityEvidence
from vae_ops.validation.scores import average_precision, macro_auc, r_squared, resampling_weights, weighted_auc
from vae_ops.validation.target import FEWEST_TEST_ROWS, Target, read_target, rows_with_target

__all__ = ["measure_utility", "synthetic_rows_wanted", "utility_findings"]

RESAMPLES = 500
CONFIDENCE = 0.95
MAX_TEST_ROWS = 8_000
MOST_ROUNDS, FEWEST_ROUNDS = 100, 40
MAX_TREE_COLUMNS = 100  # columns × trees per round beyond which fewer, bolder rounds have to do
MAX_WORK = 50_000_000  # rows × columns × trees of one fit on the real rows, about a second on one core
MAX_REPEATED_WORK = 120_000_000  # the same over all repeats, beyond which fewer of them have to do
FEWEST_ROWS = 1_000
FEWEST_REPEATS = 3
ALL_ROWS = 200_000  # up to so many, a gain measured on a sample of the real rows is confirmed against all of them
MAX_CATEGORIES = 254  # one less than what scikit-learn's histogram trees take in one feature

_METRICS = {"binary": "ROC AUC", "multiclass": "macro ROC AUC", "regression": "R²"}
_UNRELATED = frozenset({SemanticType.IDENTIFIER, SemanticType.CONSTANT, SemanticType.NULL})

Matrix = NDArray[np.float64]
Arm = tuple[int, int]
"""What one fit learns from: numbers of real and of synthetic rows."""


@dataclass(frozen=True)
class _Plan:
    """How much may be spent, by the sizes alone: a clock would make the pick depend on the machine.

    Attributes:
        real_rows: Real rows of every arm but the next.
        all_rows: Real rows of the arm that has all of them; as above, where all of them are too many.
        rounds: Most boosting rounds.
        trees: Trees of one round.
        repeats: Draws of synthetic rows, and fits, of every arm.
    """

    real_rows: int
    all_rows: int
    rounds: int
    trees: int
    repeats: int

    @classmethod
    def of(cls, rows: int, columns: int, classes: int, settings: UtilitySettings) -> "_Plan":
        trees = classes if classes > 2 else 1
        per_round = max(columns, 1) * trees
        rounds = MOST_ROUNDS if per_round <= MAX_TREE_COLUMNS else FEWEST_ROUNDS
        affordable = max(MAX_WORK // (per_round * rounds), FEWEST_ROWS)
        real_rows = min(rows, settings.max_rows, affordable)
        all_rows = rows if rows <= min(ALL_ROWS, 10 * affordable) else real_rows
        bearable = max(MAX_REPEATED_WORK // (real_rows * per_round * rounds or 1), FEWEST_REPEATS)
        return cls(real_rows, all_rows, rounds, trees, min(settings.repeats, bearable))

    @property
    def test_rows(self) -> int:
        return max(MAX_TEST_ROWS // self.trees, FEWEST_ROWS)

    @property
    def learning_rate(self) -> float:
        return 0.1 * MOST_ROUNDS / self.rounds


@dataclass(frozen=True)
class _Rows:
    """Rows as the trees take them: features `(rows, columns)` and values of the target `(rows,)`."""

    features: Matrix
    values: Matrix

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Any) -> "_Rows":
        return _Rows(self.features[rows], self.values[rows])

    def joined(self, other: "_Rows") -> "_Rows":
        return _Rows(np.concatenate([self.features, other.features]), np.concatenate([self.values, other.values]))


@dataclass(frozen=True)
class _Trial:
    """Everything that is fitted and scored.

    Attributes:
        real: In random order.
        synthetic: As they were drawn.
        tuning: Rows that decide the number of boosting rounds of each arm.
        test: Rows that are scored.
        categorical: Which features are category codes.
        target: What is learned.
        plan: How much may be spent.
        settings: Doses, repeats and limits.
        rows_known: Real rows that the generator was trained on.
        seed: Decides the learner's chance and the resamples.
    """

    real: _Rows
    synthetic: _Rows
    tuning: _Rows
    test: _Rows
    categorical: list[bool]
    target: Target
    plan: _Plan
    settings: UtilitySettings
    rows_known: int
    seed: int

    @property
    def repeats(self) -> int:
        return self.plan.repeats


@dataclass(frozen=True)
class _Outcome:
    """Scores of one arm.

    Attributes:
        score: Mean over the repeats, on the test rows as they are.
        resampled: `(RESAMPLES,)`, over test rows and repeats; the n-th of all arms is of the same resample.
        secondary: Mean average precision; None where it is not asked for.
    """

    score: float
    resampled: Matrix
    secondary: float | None


def measure_utility(
    training: pa.Table,
    holdout: pa.Table,
    synthetic: pa.Table,
    semantic_types: Mapping[str, SemanticType],
    settings: UtilitySettings,
    *,
    seed: int = 0,
) -> UtilityEvidence:
    """Measures how useful synthetic rows are for learning the target.

    A repeat has its own synthetic rows (as far as there are enough) and its own chance in the learner; each arm takes
    the number of boosting rounds that suits the rows to tune on best, so that synthetic rows cannot shine by merely
    curing an overfitted baseline. Intervals are of a paired bootstrap over test rows and repeats.

    Args:
        training: Rows the generator was trained on.
        holdout: Rows it was not trained on, in the order in which training got them: it may have stopped early on
            one half (`halve_holdout`), and never saw the other, which is the test fold.
        synthetic: Rows drawn from it; best with another seed than the rows that are published.
        semantic_types: Of the columns of `training`.
        settings: The target, doses, repeats and sizes.
        seed: Decides samples, resamples and the learner's chance.

    Returns:
        The evidence; where the target cannot be scored, only `not_measured` says why.
    """
    target = settings.target or ""
    tables = [
        rows_with_target(align_table(table, training.schema, role), target)
        for table, role in zip([training, *halve_holdout(holdout), synthetic], _ROLES, strict=True)
    ]
    if reason := _nothing_to_learn(tables, semantic_types, settings):
        return UtilityEvidence(target, None, not_measured=reason)
    plan, known = _plan(tables[0], semantic_types, settings), len(tables[0])
    most = (plan.all_rows, plan.test_rows, plan.test_rows, len(tables[3]))
    tables = [_shuffled(table, most[index], [seed, index]) for index, table in enumerate(tables)]
    found, tables = read_target(tables, semantic_types, settings)
    if reason := _nothing_to_score(found, target):
        return UtilityEvidence(target, None, not_measured=reason)
    (real, tuning, test, drawn), categorical = _encoded(tables, found, semantic_types, target)
    trial = _Trial(
        real=real,
        synthetic=drawn,
        tuning=tuning,
        test=test,
        categorical=categorical,
        target=found,
        plan=plan,
        settings=settings,
        rows_known=known,
        seed=seed,
    )
    with threadpool_limits(1):  # see `fidelity.c2st`
        return _evidence(trial)


_ROLES = ("training", "held-out", "held-out", "synthetic")


def synthetic_rows_wanted(
    training: pa.Table, semantic_types: Mapping[str, SemanticType], settings: UtilitySettings
) -> int:
    """How many synthetic rows the whole dose curve takes, fresh ones for every repeat."""
    plain = align_table(training, training.schema, "training")
    plan = _plan(rows_with_target(plain, settings.target or ""), semantic_types, settings)
    return plan.repeats * round(max(settings.doses) * plan.real_rows)


def _plan(training: pa.Table, semantic_types: Mapping[str, SemanticType], settings: UtilitySettings) -> _Plan:
    classes = read_target([training], semantic_types, settings)[0].classes
    return _Plan.of(len(training), len(_features_of(semantic_types, settings.target)), classes, settings)


def _features_of(semantic_types: Mapping[str, SemanticType], target: str | None) -> dict[str, SemanticType]:
    return {n: kind for n, kind in semantic_types.items() if n != target and kind not in _UNRELATED}


def _nothing_to_learn(
    tables: Sequence[pa.Table], semantic_types: Mapping[str, SemanticType], settings: UtilitySettings
) -> str:
    """Why learning the target makes no sense, before anything is encoded; empty if it does."""
    target = settings.target or ""
    name, (training, _, test, synthetic) = quoted(target), tables
    if len(test) < FEWEST_TEST_ROWS:
        return (
            f"The half of the held-out rows that no part of training saw has {len(test)} rows "
            f"with a known {name}; {FEWEST_TEST_ROWS} are needed: raise read.holdout_fraction."
        )
    if semantic_types[target] is SemanticType.IDENTIFIER and settings.task is None:
        return f"{name} names its rows, each by a value of its own, so there is nothing to learn; name another target."
    if not _features_of(semantic_types, target):
        return f"No column is left to learn {name} from."
    if not len(training) or not len(synthetic):
        return f"There are no {'synthetic' if len(training) else 'training'} rows with a known {name}."
    return ""


def _nothing_to_score(target: Target, name: str) -> str:
    training, _, test, _ = target.values
    for values, role in ((training, "training rows"), (test, "test fold")):
        if len(np.unique(values)) < 2:
            return f"{quoted(name)} has one value only in the {role}, so no model can be scored."
    return ""


def _shuffled(table: pa.Table, most: int, seed: Sequence[int]) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(len(table))[:most])


# --- encoding ------------------------------------------------------------------------------------------------------


def _encoded(
    tables: Sequence[pa.Table], target: Target, semantic_types: Mapping[str, SemanticType], name: str
) -> tuple[list[_Rows], list[bool]]:
    encoded = encode_tables(tables, _features_of(semantic_types, name))
    columns = {column: [table[column] for table in encoded] for column in encoded[0]}
    parts = [_feature(column) for column in columns.values()]
    features = [np.column_stack(part) for part in zip(*parts, strict=True)]
    rows = [_Rows(matrix, values) for matrix, values in zip(features, target.values, strict=True)]
    return rows, [isinstance(column[0], CategoryColumn) for column in columns.values()]


def _feature(columns: Sequence[Any]) -> list[Matrix]:
    """One column of several tables: numbers with the missing below all others, or codes by falling frequency."""
    if isinstance(columns[0], NumberColumn):
        # Trees take midpoints between values, which infinities do not have; see `fidelity.py`.
        return [np.where(c.missing == 0, c.values.clip(-1e300, 1e300), -1e300 * (1.0 + c.missing)) for c in columns]
    counts = np.bincount(columns[0].codes, minlength=columns[0].size)
    rank = np.empty(len(counts))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    lumped = np.where(counts > 0, np.minimum(rank, MAX_CATEGORIES), MAX_CATEGORIES)
    return [lumped[column.codes] for column in columns]


# --- fitting -------------------------------------------------------------------------------------------------------


def _scores(trial: _Trial, arms: Sequence[Arm]) -> dict[Arm, _Outcome]:
    """Fits every arm in every repeat and scores it on the test rows."""
    generator = np.random.default_rng([trial.seed, len(trial.test)])
    strata = trial.test.values.astype(np.int64) if trial.target.classes else np.zeros(len(trial.test), dtype=np.int64)
    weights = resampling_weights(strata, RESAMPLES, generator)
    draws = generator.integers(trial.repeats, size=(RESAMPLES, trial.repeats))
    return {arm: _outcome(trial, arm, weights, draws) for arm in arms}


def _outcome(trial: _Trial, arm: Arm, weights: Matrix, draws: NDArray[np.int64]) -> _Outcome:
    models = [_fitted(trial, arm, repeat) for repeat in range(trial.repeats)]
    rounds = _best_round(trial, models)
    predictions = [_predicted(trial, model, trial.test.features, rounds) for model in models]
    scores = np.stack([_score(trial, prediction, weights) for prediction in predictions], axis=1)
    mean, several = scores.mean(axis=1), math.sqrt(trial.repeats / (trial.repeats - 1))
    # The mean of resampled repeats varies too little by this factor, as their own mean stands in for the true one.
    among = np.take_along_axis(scores[1:], draws, axis=1).mean(axis=1) - mean[1:]
    return _Outcome(float(mean[0]), mean[1:] + several * among, _secondary(trial, predictions))


def _fitted(trial: _Trial, arm: Arm, repeat: int) -> Any:
    rows = trial.real.take(slice(0, arm[0])).joined(_drawn(trial, arm[1], repeat))
    if trial.target.classes and len(np.unique(rows.values)) < 2:
        return int(rows.values[0])  # nothing to tell apart: always the one class
    kind = HistGradientBoostingClassifier if trial.target.classes else HistGradientBoostingRegressor
    trees = kind(
        max_iter=trial.plan.rounds,
        learning_rate=trial.plan.learning_rate,
        max_leaf_nodes=15,
        min_samples_leaf=max(3, min(20, len(rows) // 20)),
        max_features=0.7,  # the learner's chance, so that no arm wins by one lucky fit
        categorical_features=trial.categorical,
        early_stopping=False,
        random_state=np.random.default_rng([trial.seed, repeat]).integers(2**31),
    )
    return trees.fit(rows.features, rows.values)


def _drawn(trial: _Trial, rows: int, repeat: int) -> _Rows:
    """A repeat's own synthetic rows, the smaller dose within the larger; of too few rows, a random part of them."""
    pool = len(trial.synthetic)
    share = pool // trial.repeats
    if rows <= share:
        return trial.synthetic.take(slice(repeat * share, repeat * share + rows))
    return trial.synthetic.take(np.random.default_rng([trial.seed, repeat, pool]).permutation(pool)[:rows])


def _best_round(trial: _Trial, models: Sequence[Any]) -> int:
    """Number of boosting rounds with the least mean loss on the rows to tune on."""
    if not len(trial.tuning):
        return trial.plan.rounds
    losses = np.zeros(trial.plan.rounds)
    for model in models:
        staged = _staged(trial, model, trial.tuning.features)
        losses += [_loss(trial, predicted) for predicted in itertools.islice(staged, trial.plan.rounds)]
    return int(losses.argmin()) + 1


def _predicted(trial: _Trial, model: Any, features: Matrix, rounds: int) -> Matrix:
    return next(itertools.islice(_staged(trial, model, features), rounds - 1, None))


def _staged(trial: _Trial, model: Any, features: Matrix) -> Iterator[Matrix]:
    """Predictions after each round: chances `(rows, classes)`, or values `(rows, 1)`."""
    classes = trial.target.classes
    if not classes:
        yield from (values[:, None] for values in model.staged_predict(features))
    elif isinstance(model, int):
        yield from itertools.repeat(np.tile(np.eye(classes)[model], (len(features), 1)))
    else:
        for chances in model.staged_predict_proba(features):
            every = np.zeros((len(features), classes))
            every[:, model.classes_.astype(np.int64)] = chances
            yield every


def _loss(trial: _Trial, predicted: Matrix) -> float:
    truth = trial.tuning.values
    if not trial.target.classes:
        return float(np.mean((predicted[:, 0] - truth) ** 2))
    return -float(np.mean(np.log(np.maximum(predicted[np.arange(len(truth)), truth.astype(np.int64)], 1e-6))))


def _score(trial: _Trial, predicted: Matrix, weights: Matrix) -> Matrix:
    truth = trial.test.values
    if trial.target.task == "regression":
        return r_squared(truth, predicted[:, 0], weights)
    if trial.target.task == "binary":
        return weighted_auc(truth == 1, predicted[:, 1], weights)
    return macro_auc(truth.astype(np.int64), predicted, weights)


def _secondary(trial: _Trial, predictions: Sequence[Matrix]) -> float | None:
    if not trial.target.imbalanced:
        return None
    truth = trial.test.values.astype(np.int64)
    return float(np.mean([average_precision(truth, predicted) for predicted in predictions]))


# --- what follows --------------------------------------------------------------------------------------------------


def _evidence(trial: _Trial) -> UtilityEvidence:
    rows, pool = min(trial.plan.real_rows, len(trial.real)), len(trial.synthetic)
    doses = [dose for dose in sorted({0.0, *trial.settings.doses}) if round(dose * rows) <= pool]
    arms = {dose: (rows, round(dose * rows)) for dose in doses}
    alone, real = (0, min(rows, pool)), (min(rows, pool), 0)
    outcomes = _scores(trial, sorted({alone, real, (len(trial.real), 0), *arms.values()}))
    return UtilityEvidence(
        target=trial.settings.target or "",
        task=trial.target.task,
        metric=_METRICS[trial.target.task],
        score_real=outcomes[real].score,
        score_synthetic=outcomes[alone].score,
        gap=outcomes[real].score - outcomes[alone].score,
        gap_interval=_interval(outcomes[real].resampled - outcomes[alone].resampled),
        secondary_metric="average precision" if trial.target.imbalanced else "",
        secondary_real=outcomes[real].secondary,
        secondary_synthetic=outcomes[alone].secondary,
        rows_train=real[0],
        rows_test=len(trial.test),
        dose_curve=_curve(trial, {dose: outcomes[arm] for dose, arm in arms.items()}, outcomes[len(trial.real), 0]),
    )


def _interval(resampled: Matrix) -> Interval:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _curve(trial: _Trial, outcomes: Mapping[float, _Outcome], everything: _Outcome) -> DoseCurve | None:
    none, doses = outcomes[0.0], [dose for dose in outcomes if dose > 0]
    if not doses:
        return None
    gains = _Gains.of([outcomes[dose] for dose in doses], none)
    points = [DosePoint(0.0, none.score, _interval(none.resampled), 0.0, Interval(0.0, 0.0), none.secondary)]
    for dose, gain, interval in zip(doses, gains.values, gains.intervals, strict=True):
        outcome = outcomes[dose]
        points.append(DosePoint(dose, outcome.score, _interval(outcome.resampled), gain, interval, outcome.secondary))
    best = max(points[1:], key=lambda point: point.gain_interval.low)
    kept = gains.beyond(outcomes[best.dose], everything) if best.gain_interval.low > 0 else None
    picked, reason = _pick(trial, points, best, kept)
    return DoseCurve(tuple(points), picked, reason, rows_real=trial.plan.real_rows, repeats=trial.repeats)


@dataclass(frozen=True)
class _Gains:
    """Gains over dose 0 and their intervals, which hold all at once (a maximum statistic over the doses)."""

    values: tuple[float, ...]
    intervals: tuple[Interval, ...]
    reach: float

    @classmethod
    def of(cls, outcomes: Sequence[_Outcome], none: _Outcome) -> "_Gains":
        values = np.array([outcome.score - none.score for outcome in outcomes])
        resampled = np.stack([outcome.resampled - none.resampled for outcome in outcomes], axis=1)
        errors = resampled.std(axis=0, ddof=1)
        strays = np.abs(resampled - resampled.mean(axis=0)) / np.maximum(errors, np.finfo(np.float64).tiny)
        reach = float(np.quantile(strays.max(axis=1), CONFIDENCE))
        bounds = zip(values - reach * errors, values + reach * errors, strict=True)
        intervals = tuple(Interval(float(low), float(high)) for low, high in bounds)
        return cls(tuple(map(float, values)), intervals, reach)

    def beyond(self, outcome: _Outcome, other: _Outcome) -> Interval:
        """The gain over something else than dose 0, as widely."""
        gain = outcome.score - other.score
        error = self.reach * float((outcome.resampled - other.resampled).std(ddof=1))
        return Interval(gain - error, gain + error)


def _pick(trial: _Trial, points: Sequence[DosePoint], best: DosePoint, over_all: Interval | None) -> tuple[float, str]:
    """The dose to add, and why; `over_all` is the best dose's gain over all real rows, where it gains at all."""
    metric, rows = _METRICS[trial.target.task], f"{trial.rows_known:,}"
    if over_all is None:
        top = max(points[1:], key=lambda point: point.gain)
        return 0.0, (
            f"No dose raises the {metric} beyond chance, so none is added: at best, {_change(top)}, measured on "
            f"{len(trial.test):,} test rows."
        )
    if trial.rows_known == trial.plan.real_rows:
        return best.dose, f"The surest gain in {metric} beyond chance: {_change(best)}."
    # The generator saw all rows and passes some of what they hold on to a fit that has only a sample of them.
    sampled = f"Added to {trial.plan.real_rows:,} of {rows} real rows, {_change(best)} in {metric}"
    if trial.plan.all_rows < trial.rows_known:
        return 0.0, f"{sampled}; whether that holds for all of them would take too long to confirm, so none is added."
    if over_all.low > 0:
        return best.dose, f"{sampled}, also beyond what all real rows alone reach ({_bounds(over_all)})."
    return 0.0, f"{sampled}, but not beyond what all real rows alone reach, so none is added."


def _change(point: DosePoint) -> str:
    amount = f"{point.dose:g} part{'s' if point.dose > 1 else ''} synthetic"
    return f"{amount} for a difference of {point.gain:+.4f} ({_bounds(point.gain_interval)})"


def _bounds(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def utility_findings(evidence: UtilityEvidence, settings: UtilitySettings) -> list[Finding]:
    """What the gate weighs: how much a model learns less from synthetic rows than from as many real ones.

    Args:
        evidence: What `measure_utility` found.
        settings: Which gap is allowed, and from where on it is a failure, if anywhere.

    Returns:
        One finding, or none where nothing was measured.
    """
    allowed = settings.max_gap
    if evidence.gap is None or evidence.gap_interval is None or allowed is None:
        return []
    noise = max(evidence.gap - evidence.gap_interval.low, 0.0)
    excess, name = max(evidence.gap - noise, 0.0), quoted(evidence.target)
    passes, fails = excess <= allowed, settings.fail_gap is not None and excess > settings.fail_gap
    finding = Finding(
        metric="utility_gap",
        aspect="utility",
        verdict="pass" if passes else "fail" if fails else "borderline",
        value=evidence.gap,
        interval=evidence.gap_interval,
        noise=noise,
        limit=allowed + noise,
        weight=excess / allowed if allowed else math.inf if excess else 0.0,
        sentence=(
            f"A model trained on synthetic rows alone predicts {name} with a {evidence.metric} of "
            f"{evidence.score_synthetic:.3f}, against {evidence.score_real:.3f} from as many real rows: "
            f"{'within' if passes else 'over'} the {allowed:g} less that is allowed beyond chance ({noise:.2g})."
        ),
        remedy="" if passes else f"Train longer, or leave out columns that say nothing about {name}.",
    )
    return [finding]
