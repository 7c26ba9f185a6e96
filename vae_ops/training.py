"""Training a `TabularNetwork`: how many steps, the loop, early stop, averaged weights, and the collapse diagnosis.

The number of steps follows from the time budget and the table's shape by a cost model, never from a clock, so that the
same settings give the same weights. The clock is only a safety stop, and hitting it is recorded. A training that was
killed goes on from its last evaluation, as `checkpoint.py` keeps it, to the same weights. The loop itself is
TensorFlow's; the network (`networks.py`) is not tied to it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vae_ops.checkpoint import Checkpoints
from vae_ops.encoding.base import Codes, Tokens
from vae_ops.encoding.row import TokenLayout
from vae_ops.settings import TrainSettings
from vae_ops.storage import Location
from vae_ops.version import __version__

if TYPE_CHECKING:
    from vae_ops.networks import NetworkSize, TabularNetwork

__all__ = ["Diagnosis", "TrainingData", "TrainingPlan", "TrainingProgress", "TrainingResult", "plan_training", "train"]

# TensorFlow does so many steps, or about so many seconds of them, before it reports.
_STEPS_PER_CALL = 25
_SECONDS_PER_CALL = 0.5
_AVERAGING = 0.998
# Evaluations without gain after which training is wound up.
_PATIENCE = 5
_ACTIVE_VARIANCE = 0.01
_LEARNING_RATE = 4e-3
_CLIP_NORM = 10.0
_HOLDOUT_ROWS = 4096
# Weights cut off at a high learning rate are noisy, so whatever ends training early lets the rate fall to zero first,
# over this share of the plan: quickly when the clock has run out, at leisure when the holdout gains no more.
_CLOCK_COOL_DOWN = 0.03
_HOLDOUT_COOL_DOWN = 0.15


@dataclass(frozen=True)
class TrainingProgress:
    """One moment of training.

    Attributes:
        step: Optimiser steps done.
        steps: Optimiser steps planned.
        loss: Mean −ELBO per row since the last report, nats.
        holdout_loss: −ELBO per held-out row under the averaged weights, nats; None before it is first measured.
        kl: KL of the latent per held-out row, nats.
        elapsed_seconds: Since the first step, without the time between a kill and going on.
        note: What became of an earlier, killed try of this training; empty where there was none.
    """

    step: int
    steps: int
    loss: float
    holdout_loss: float | None
    kl: float
    elapsed_seconds: float
    note: str = ""


@dataclass(frozen=True)
class TrainingData:
    """Rows as the network sees them.

    Attributes:
        tokens: Shape (rows, tokens).
        positions: Shape (rows, tokens).
    """

    tokens: Tokens
    positions: NDArray[np.float32]

    @classmethod
    def of(cls, layout: TokenLayout, codes: Codes) -> "TrainingData":
        """Adds the positions; both are kept small, as a table of training rows lies in memory."""
        return cls(codes.tokens.astype(np.int16), layout.positions(codes).astype(np.float16))


@dataclass(frozen=True)
class TrainingPlan:
    """What will be done: fixed before the first step.

    Attributes:
        steps: Optimiser steps.
        batch_rows: Rows per step.
        steps_per_call: Steps between two looks at the clock.
        learning_rate: At the first step; it falls linearly to zero.
        kl_warm_up: Share of the steps over which the weight of the KL rises from 0 to 1; 0 weighs it fully at once, as
            for weights that have learned to use the latent already.
        evaluations: How often the averaged weights are measured on the way.
    """

    steps: int
    batch_rows: int
    steps_per_call: int = _STEPS_PER_CALL
    learning_rate: float = _LEARNING_RATE
    kl_warm_up: float = 0.25
    evaluations: int = 24

    def shortened(self, share: float) -> "TrainingPlan":
        """The plan of a refresh: fewer steps, and the full KL at once, as the weights have learned before."""
        steps = max(round(share * self.steps), 1)
        return replace(self, steps=steps, kl_warm_up=0.0, evaluations=8)


@dataclass(frozen=True)
class Diagnosis:
    """Whether the latent is used, and what each column costs.

    Attributes:
        kl_by_dimension: KL per held-out row of each latent dimension, nats.
        active_units: Dimensions whose posterior mean varies over rows by more than 0.01 (Burda et al., 1509.00519).
        loss_by_token: −log p per held-out row of each token, nats, in the order of the layout.
        latent_is_used: Whether any unit is active.
    """

    kl_by_dimension: tuple[float, ...]
    active_units: int
    loss_by_token: tuple[float, ...]
    latent_is_used: bool


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves besides the weights.

    Attributes:
        steps: Optimiser steps done.
        planned_steps: Optimiser steps planned.
        stopped_by: `plan` (all steps done), `holdout` (no more gain) or `clock` (the safety stop).
        history: One record per evaluation.
        diagnosis: Of the kept weights.
    """

    steps: int
    planned_steps: int
    stopped_by: str
    history: tuple[dict[str, float], ...]
    diagnosis: Diagnosis

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def plan_training(layout: TokenLayout, size: "NetworkSize", rows: int, settings: TrainSettings) -> TrainingPlan:
    """Derives the steps from the budget, the rows and the widths.

    Args:
        layout: The tokens of a row.
        size: Widths of the network.
        rows: Training rows.
        settings: Steps or time budget.
    """
    batch_rows = int(min(256, max(16, 2 ** int(np.log2(max(rows // 8, 1))))))
    seconds = _seconds_per_step(layout, size, batch_rows)
    per_call = int(np.clip(_SECONDS_PER_CALL / seconds, 1, _STEPS_PER_CALL))
    if settings.steps is not None:
        return TrainingPlan(settings.steps, batch_rows, per_call)
    affordable = _BUDGET_SHARE * settings.time_budget_seconds / seconds
    useful = _MAX_EPOCHS * rows / batch_rows
    return TrainingPlan(int(max(20, min(affordable, useful))), batch_rows, per_call)


# More passes than this over a table only fit its noise.
_MAX_EPOCHS = 80
# The rest of the budget goes to building the network and to slower machines.
_BUDGET_SHARE = 0.8
# Fitted to measured steps of the default widths on two cores: overhead of one step, and seconds per multiplication.
_STEP_OVERHEAD_SECONDS = 4e-3
_SECONDS_PER_PRODUCT = 7.5e-11


def _seconds_per_step(layout: TokenLayout, size: "NetworkSize", batch_rows: int) -> float:
    count, inputs = len(layout), len(layout) * (size.embedding_dim + 1)
    per_row = 2 * (inputs + size.hidden_layers * size.hidden_units) * size.hidden_units
    per_row += count * size.head_units * (size.hidden_units + size.head_layers * size.head_units)
    per_row += int(size.head_units * np.maximum(layout.sizes, 8).sum() * 1.5)
    if size.context_rank is None:
        per_row += inputs * count * size.head_units
    else:
        per_row += inputs * size.context_rank + count * size.context_rank * size.head_units
    return _STEP_OVERHEAD_SECONDS + 3 * batch_rows * per_row * _SECONDS_PER_PRODUCT


def train(
    network: "TabularNetwork",
    data: TrainingData,
    holdout: TrainingData,
    plan: TrainingPlan,
    *,
    seed: int,
    limit_seconds: float,
    progress: Callable[[TrainingProgress], None] | None = None,
    checkpoint: Location | None = None,
) -> TrainingResult:
    """Trains in place; the network ends with its averaged weights.

    Args:
        network: Fresh or to be continued.
        data: Training rows.
        holdout: Rows that decide when to stop.
        plan: Steps and batch.
        seed: Decides the batches.
        limit_seconds: The safety stop.
        progress: Called after each evaluation and between.
        checkpoint: Directory of this training's checkpoints: it goes on from the last one there, to the same weights
            as without a break. A damaged one, or one of another training, is left aside and said so in the progress.
    """
    loop, watch = _Loop(network, data, holdout, plan, seed), _Watch()
    course = _Course(plan.steps, plan.evaluations, stop_at=plan.steps)
    checkpoints = Checkpoints(checkpoint, _identity(network, data, holdout, plan, seed) if checkpoint else "")
    _go_on(checkpoints, loop, watch, course)
    begin = time.monotonic() - course.seconds
    while course.done < course.stop_at:
        start, course.done = course.done, course.next_stop(plan.steps_per_call)
        loss = loop.run(start, course.done)
        if course.is_at_evaluation:
            watch.note(course.done, loss, loop)
        course.seconds = time.monotonic() - begin
        if progress is not None:
            step, note = course.done, checkpoints.note
            progress(TrainingProgress(step, plan.steps, loss, watch.holdout_loss, watch.kl, course.seconds, note))
        _wind_up(loop, watch, course, limit_seconds)
        if course.is_at_evaluation:
            checkpoints.save(course.done, lambda: _state(loop, watch, course))
    loop.wear_averages()
    return TrainingResult(
        steps=course.done,
        planned_steps=plan.steps,
        stopped_by=course.stopped_by,
        history=tuple(watch.history),
        diagnosis=loop.diagnose(),
    )


@dataclass
class _Course:
    """How far training has come, and where it ends.

    Attributes:
        planned: Steps of the plan.
        evaluations: Evaluations of the plan.
        stop_at: The last step; earlier than planned once something ends training early.
        done: Steps done.
        stopped_by: What ends training.
        seconds: Time spent.
    """

    planned: int
    evaluations: int
    stop_at: int
    done: int = 0
    stopped_by: str = "plan"
    seconds: float = 0.0

    def next_stop(self, steps: int) -> int:
        """Where a call of so many steps ends; evaluations fall on fixed steps, whatever the size of a call."""
        return min(self.done + steps, self.stop_at, (self.done // self._every + 1) * self._every)

    @property
    def is_at_evaluation(self) -> bool:
        """Whether the averaged weights are to be measured after the last step."""
        return self.done % self._every == 0 or self.done == self.stop_at

    @property
    def _every(self) -> int:
        return max(self.planned // self.evaluations, 1)


def _wind_up(loop: "_Loop", watch: "_Watch", course: _Course, limit_seconds: float) -> None:
    """Lets training end soon if the clock has run out or the holdout gains no more."""
    reason = "clock" if course.seconds > limit_seconds else "holdout" if watch.exhausted else "plan"
    if course.stopped_by != "plan" or reason == "plan" or course.done >= course.stop_at:
        return
    course.stopped_by = reason
    share = _CLOCK_COOL_DOWN if reason == "clock" else _HOLDOUT_COOL_DOWN
    course.stop_at = min(course.done + max(int(share * course.planned), 1), course.planned)
    if reason == "holdout":
        loop.return_to(watch.best)
    loop.cool_down(course.done, course.stop_at)


def _identity(
    network: "TabularNetwork", data: TrainingData, holdout: TrainingData, plan: TrainingPlan, seed: int
) -> str:
    """Digest of all that decides the weights in the end, the clock apart."""
    import tensorflow as tf

    facts = {
        "plan": asdict(plan),
        "seed": seed,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "versions": {"vae-ops": __version__} | {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(network.arrays().items()):
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    for rows in (data, holdout):
        digest.update(f"{rows.tokens.shape}".encode() + rows.tokens.tobytes() + rows.positions.tobytes())
    return digest.hexdigest()


def _state(loop: "_Loop", watch: "_Watch", course: _Course) -> dict[str, Any]:
    return {"course": asdict(course), "watch": watch.state(), "loop": loop.state()}


def _go_on(checkpoints: Checkpoints, loop: "_Loop", watch: "_Watch", course: _Course) -> None:
    """Takes up what an earlier try of the same training left, if anything."""
    state = checkpoints.load()
    if state is None:
        return
    for name, value in state["course"].items():
        setattr(course, name, value)
    watch.restore(state["watch"])
    loop.restore(state["loop"], course.done)
    checkpoints.note = f"went on from step {course.done:,} of an earlier try"


@dataclass
class _Watch:
    """Follows the averaged weights on the holdout and notices when they gain no more."""

    history: list[dict[str, float]] = field(default_factory=list)
    holdout_loss: float | None = None
    kl: float = 0.0
    best: Sequence[NDArray[np.float32]] = ()
    _lowest: float = np.inf
    _since_lowest: int = 0

    def note(self, step: int, loss: float, loop: "_Loop") -> None:
        """Measures the averaged weights."""
        reconstruction, self.kl = loop.holdout_loss()
        self.holdout_loss = reconstruction + self.kl
        self.history.append({"step": step, "loss": loss, "holdout_loss": self.holdout_loss, "kl": self.kl})
        self._since_lowest += 1
        if self.holdout_loss < self._lowest:
            self._lowest, self._since_lowest, self.best = self.holdout_loss, 0, loop.averages()

    @property
    def exhausted(self) -> bool:
        """Whether the last evaluations brought nothing."""
        return self._since_lowest >= _PATIENCE

    def state(self) -> dict[str, Any]:
        """All that was seen, for a checkpoint."""
        return {**vars(self), "best": list(self.best)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        vars(self).update(state)


class _Loop:
    """The TensorFlow part: batches, gradients, averaged weights."""

    def __init__(
        self, network: "TabularNetwork", data: TrainingData, holdout: TrainingData, plan: TrainingPlan, seed: int
    ) -> None:
        import keras
        import tensorflow as tf

        self._network = network
        self._plan = plan
        self._weights = network.trainable_weights
        self._batches = _batches(len(data.tokens), plan.batch_rows, np.random.default_rng([seed, 1]))
        self._optimiser = keras.optimizers.Adam(plan.learning_rate, global_clipnorm=_CLIP_NORM)
        self._optimiser.build(self._weights)
        self._averages = [tf.Variable(tf.identity(weight.value)) for weight in self._weights]
        self._rate_from = tf.Variable(0.0)
        self._rate_until = tf.Variable(float(plan.steps))
        self._rate = tf.Variable(plan.learning_rate)
        self._tokens, self._positions = tf.constant(data.tokens), tf.constant(data.positions)
        shown = np.arange(len(holdout.tokens))[:_HOLDOUT_ROWS]
        self._holdout = (_wide(tf.constant(holdout.tokens[shown])), _wide(tf.constant(holdout.positions[shown])))
        # One trace serves calls of any number of steps.
        called_with = [tf.TensorSpec([], tf.int32), tf.TensorSpec([None, plan.batch_rows], tf.int32)]
        self._run = tf.function(self._steps, input_signature=called_with, autograph=False)
        self._evaluate = tf.function(self._measure, autograph=False)

    def run(self, start: int, stop: int) -> float:
        """Does steps `start` … `stop − 1`; their mean −ELBO."""
        import tensorflow as tf

        rows = np.stack([next(self._batches) for _ in range(start, stop)])
        return float(self._run(tf.constant(start, tf.int32), tf.constant(rows, tf.int32)))

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on but the batches, which follow from the seed and the number of the step."""
        return {
            "weights": [weight.value.numpy() for weight in self._weights],
            "averages": self.averages(),
            "optimiser": [np.asarray(variable.value) for variable in self._optimiser.variables],
            "rates": [float(rate.numpy()) for rate in self._rates],
            "noise": self._network.noise.state.value.numpy(),
        }

    def restore(self, state: Mapping[str, Any], done: int) -> None:
        """The inverse of `state`, after so many steps."""
        variables = (*self._weights, *self._averages, *self._optimiser.variables, *self._rates)
        values = (*state["weights"], *state["averages"], *state["optimiser"], *state["rates"])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self._network.noise.state.assign(state["noise"])
        for _ in range(done):
            next(self._batches)

    @property
    def _rates(self) -> tuple[Any, ...]:
        return self._rate, self._rate_from, self._rate_until

    def cool_down(self, start: int, stop: int) -> None:
        """Lets the learning rate fall to zero between two steps instead of at the end of the plan."""
        self._rate.assign(self._rate * (1.0 - (start - self._rate_from) / (self._rate_until - self._rate_from)))
        self._rate_from.assign(float(start))
        self._rate_until.assign(float(stop))

    def _steps(self, start: Any, rows: Any) -> Any:
        import tensorflow as tf

        def one_more(index: Any, total: Any) -> tuple[Any, Any]:
            return index + 1, total + self._step(tf.cast(start + index, tf.float32), rows[index])

        count = tf.shape(rows)[0]
        _, total = tf.while_loop(lambda index, _: index < count, one_more, (tf.constant(0), tf.constant(0.0)))
        return total / tf.cast(count, tf.float32)

    def _step(self, step: Any, rows: Any) -> Any:
        import tensorflow as tf

        batch = (_wide(tf.gather(self._tokens, rows)), _wide(tf.gather(self._positions, rows)))
        rising = self._plan.kl_warm_up * self._plan.steps
        warm = tf.minimum(1.0, step / rising) if rising else 1.0
        with tf.GradientTape() as tape:
            losses, kl = self._network(batch)
            reconstruction = tf.reduce_sum(tf.reduce_mean(losses, axis=1))
            divergence = tf.reduce_sum(tf.reduce_mean(kl, axis=0))
            loss = reconstruction + warm * divergence
        gradients = tape.gradient(loss, [weight.value for weight in self._weights])
        fallen = 1.0 - (step - self._rate_from) / (self._rate_until - self._rate_from)
        self._optimiser.learning_rate.assign(self._rate * tf.minimum(fallen, (step + 1.0) / 50.0))
        self._optimiser.apply([tf.convert_to_tensor(gradient) for gradient in gradients], self._weights)
        # Early averages forget fast, so that the random start does not linger in short runs.
        keep = tf.minimum(_AVERAGING, (step + 1.0) / (step + 10.0))
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(keep * average + (1.0 - keep) * weight.value)
        return reconstruction + divergence

    def _measure(self) -> Any:
        import tensorflow as tf

        losses, kl = self._network(self._holdout)
        return (
            tf.reduce_mean(losses, axis=1),
            tf.reduce_mean(kl, axis=0),
            tf.math.reduce_variance(self._network.posterior(self._network.embed(*self._holdout))[0], axis=0),
        )

    def holdout_loss(self) -> tuple[float, float]:
        """Reconstruction loss and KL per held-out row under the averaged weights, nats."""
        current = [weight.value.numpy() for weight in self._weights]
        self.wear_averages()
        # Each measurement draws the same noise, so that only the weights make a difference.
        noise = self._network.noise.state.value.numpy()
        self._network.noise.state.assign(np.zeros_like(noise))
        losses, kl, _ = self._evaluate()
        self._network.noise.state.assign(noise)
        for weight, value in zip(self._weights, current, strict=True):
            weight.assign(value)
        return float(np.sum(losses)), float(np.sum(kl))

    def averages(self) -> list[NDArray[np.float32]]:
        """A copy of the averaged weights."""
        return [average.numpy() for average in self._averages]

    def return_to(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Goes on from these weights, and averages from them."""
        for weight, average, value in zip(self._weights, self._averages, weights, strict=True):
            weight.assign(value)
            average.assign(value)

    def wear_averages(self) -> None:
        """Gives the network its averaged weights."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.assign(average)

    def diagnose(self) -> Diagnosis:
        """The diagnosis of the weights that the network has now."""
        losses, kl, variance = (value.numpy() for value in self._evaluate())
        by_token = losses[np.argsort(self._network.token_order)]
        active = int(np.sum(variance > _ACTIVE_VARIANCE))
        return Diagnosis(
            kl_by_dimension=tuple(round(float(value), 6) for value in kl),
            active_units=active,
            loss_by_token=tuple(round(float(value), 6) for value in by_token),
            latent_is_used=active > 0,
        )


def _wide(values: Any) -> Any:
    import tensorflow as tf

    return tf.cast(values, tf.int32 if values.dtype.is_integer else tf.float32)


def _batches(rows: int, batch_rows: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches without replacement within each pass; a table smaller than a batch repeats rows."""
    pool = np.zeros(0, dtype=np.int64)
    while True:
        while len(pool) < batch_rows:
            pool = np.concatenate([pool, rng.permutation(rows)])
        yield pool[:batch_rows]
        pool = pool[batch_rows:]
