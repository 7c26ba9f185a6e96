"""Which model draws tonight's rows: the one that is there, a refresh of it, or one trained from nothing.

`decision.py` decides, the engine learns, `validation/trial.py` puts the challenger on trial against the champion;
`steps.py` saves what comes of it and `registry.py` keeps the models. Here these meet; nothing is promoted yet.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa

from vae_ops.decision import Decision, Past, decide, learning_digest
from vae_ops.drift import Drift, measure_drift
from vae_ops.errors import CannotRefreshError, ContentError
from vae_ops.holdout import split_holdout
from vae_ops.profiling import Profile, merge_profiles, profile_source
from vae_ops.registry import Champion, Lineage
from vae_ops.schema import infer_semantic_types
from vae_ops.settings import RunSettings
from vae_ops.table import SourceTable, filter_rows
from vae_ops.validation.succession import RefreshEvidence, Trial
from vae_ops.walk import (
    Model,
    Rows,
    Walk,
    another_seed,
    code_version,
    path_of,
    rows_to_learn,
    together,
    training_listener,
)

__all__ = ["Night", "Selection", "rehearsal_of"]


@dataclass(frozen=True)
class Selection:
    """The model that draws the rows, and what led to it.

    Attributes:
        model: The model.
        is_new: Whether it was trained tonight; otherwise it is the champion.
        decision: What was decided to do.
        rows: What the choice was made by.
        trial: How the challenger did against the champion; None where there was nothing to compare.
    """

    model: Model
    is_new: bool
    decision: Decision
    rows: Rows
    trial: Trial | None = None


class Night:
    """Tonight's source beside what earlier nights left.

    Args:
        walk: Tonight's run.
        profile: Of tonight's source.
    """

    def __init__(self, walk: Walk, profile: Profile) -> None:
        self._walk = walk
        self._profile = profile
        self.champion: Champion | None = walk.registry.champion()

    @cached_property
    def learns_from_new_files(self) -> bool:
        """Whether only files are learned that the champion's line has not seen, beside a rehearsal of the others."""
        known = self.champion is not None and self._reference is not None and bool(self.champion.lineage.watermark)
        return known and self._walk.settings.read.incremental and self._walk.settings.refresh.mode != "retrain"

    @cached_property
    def unseen(self) -> SourceTable:
        """The rows that may move the model: of an incremental source the new files, else all."""
        if not self.learns_from_new_files or self.champion is None:
            return self._walk.source
        return self._walk.reopened(unseen=self.champion.lineage.watermark)

    @cached_property
    def profile(self) -> Profile:
        """Of the unseen rows."""
        return profile_source(self.unseen) if self.learns_from_new_files else self._profile

    @cached_property
    def _reference(self) -> Profile | None:
        """Profile of what the champion learned; None on a first night, or after a change of format."""
        return self._walk.registry.profile(self.champion.version) if self.champion else None

    @cached_property
    def drift(self) -> Drift | None:
        """What moved since the champion learned; None on a first night."""
        if self.champion is None or self._reference is None:
            return None
        if self.unseen.num_rows == 0:
            return Drift("quiet", self.champion.lineage.rows, 0, (), ())
        return measure_drift(self._reference, self.profile, self._walk.settings.refresh)

    def check_not_broken(self) -> None:
        """Stops a night whose source only a broken upstream can explain.

        Raises:
            ContentError: A column has lost its values since the champion learned.
        """
        if self.drift is not None and self.drift.movement == "broken":
            raise ContentError(self.drift.sentences[0])

    # --- rows ----------------------------------------------------------------------------------------------------

    def _rehearses(self, decision: Decision) -> bool:
        """Whether new rows are learned beside a rehearsal of old ones; else the whole table is."""
        return decision.kind == "refresh" and self.learns_from_new_files

    def _rows(self, decision: Decision) -> Rows:
        read = self._walk.settings.read
        kept = self._walk.registry.rehearsal(self.champion.version) if self.champion else None
        if kept is None or not self._rehearses(decision):
            return rows_to_learn(self._walk.source, read)
        table = self._rehearsed(kept)
        training, holdout = split_holdout(table, read.holdout_fraction, read.seed)
        return Rows(training, holdout, sampled=table.num_rows < self._walk.source.num_rows)

    def _rehearsed(self, kept: pa.Table) -> pa.Table:
        """A uniform sample of all rows ever seen: new ones, beside kept ones that stand for the old."""
        assert self.champion is not None
        read, seen = self._walk.settings.read, max(self.champion.lineage.rows, 1)
        share = min(kept.num_rows / seen, 1.0)
        fresh = self.unseen.sample(max(round(share * self.unseen.num_rows), 1), read.seed, to_learn=False)
        return _thinned(pa.concat_tables([kept, fresh]).unify_dictionaries(), read.max_training_rows, read.seed)

    # --- models --------------------------------------------------------------------------------------------------

    def select(self) -> Selection:
        """Decides, learns, and puts what was learned on trial.

        Raises:
            UsageError: Reuse is asked for where it cannot be.
            BundleError: The champion is not what was saved.
        """
        decision = decide(self._past(), self.drift, self._walk.settings, code_version=code_version())
        self._walk.tell("train", 0.0, f"{decision.kind}: {decision.reason}")
        if decision.kind == "refresh":
            try:
                return self._on_trial(decision)
            except CannotRefreshError as error:
                decision = Decision("retrain", f"{decision.reason} But it cannot be refreshed: {error}")
                self._walk.tell("train", 0.0, f"{decision.kind}: {decision.reason}")
        if decision.kind == "reuse":
            return Selection(self._champion_model(), False, decision, self._rows(decision))
        return self._on_trial(decision)

    def _on_trial(self, decision: Decision) -> Selection:
        """Learns, and keeps what was learned unless the champion is better."""
        rows = self._rows(decision)
        model = self._learned(decision, rows)
        trial = self._trial(model, rows)
        if trial is None or trial.challenger_wins:
            return Selection(model, True, decision, rows, trial)
        self._walk.tell("train", 0.99, f"the champion stays: {trial.sentence}")
        return Selection(self._champion_model(), False, decision, rows, trial)

    def _past(self) -> Past | None:
        if self.champion is None:
            return None
        lineage, failed = self.champion.lineage, self.champion.failed
        return Past(
            version=self.champion.version,
            settings_digest=lineage.settings_digest,
            code_version=lineage.code_version,
            trained_at=datetime.fromisoformat(lineage.trained_at),
            refreshes=lineage.refreshes,
            failed_refresh=failed == "refresh",
        )

    def _champion_model(self) -> Model:
        assert self.champion is not None
        return self._walk.engine.load(path_of(self._walk.registry.bundle(self.champion.version)))

    def _learned(self, decision: Decision, rows: Rows) -> Model:
        settings, listen = self._walk.settings, training_listener(self._walk.report)
        model = self._walk.engine(settings=settings.train, read=settings.read, progress=listen)
        checkpoint = self._walk.run.checkpoint
        if decision.kind == "refresh":
            model.refresh_tables(
                rows.training,
                rows.holdout,
                champion=self._champion_model(),
                steps_share=settings.refresh.steps_share,
                checkpoint=checkpoint,
            )
        else:
            model.fit_tables(rows.training, rows.holdout, checkpoint=checkpoint)
        return model

    def _trial(self, challenger: Model, rows: Rows) -> Trial | None:
        """Challenger against champion; None where there is no champion of this schema."""
        if self.champion is None or self.drift is None or self.drift.movement == "schema":
            return None
        from vae_ops.validation.trial import compare_models

        walk = self._walk
        walk.tell("train", 0.99, "on trial against the champion")
        seed = another_seed(walk.settings.generate.seed)
        most = min(walk.settings.refresh.trial_rows, max(rows.training.num_rows, 1000))
        champion, drawn = (
            together(model, model.sample_shard(most, seed=seed)) for model in (self._champion_model(), challenger)
        )
        types = infer_semantic_types(rows.training, walk.settings.read.semantic_types)
        return compare_models(
            rows.training, rows.holdout, champion, drawn, walk.settings.gate, semantic_types=types, seed=seed
        )

    # --- records -------------------------------------------------------------------------------------------------

    def evidence(self, chosen: Selection, version: str) -> RefreshEvidence:
        """What the report says of the choice; `version` is that of the chosen model."""
        before = self.champion.version if self.champion else ""
        goes_on = not chosen.is_new or chosen.decision.kind == "refresh"
        line = self._walk.registry.lineage_of(before) if before and goes_on else ()
        return RefreshEvidence(
            decision=chosen.decision.kind,
            reason=chosen.decision.reason,
            model_version=version,
            champion=before,
            drift=self.drift,
            trial=chosen.trial,
            lineage=(*([version] if chosen.is_new else []), *(link.version for link in line)),
        )

    def reference(self, chosen: Selection) -> Profile:
        """Profile of all rows that a model trained tonight has seen, ever: what later nights are compared with."""
        if self._reference is None or not self._rehearses(chosen.decision):
            return self._profile
        return merge_profiles([self._reference, self.profile])

    def lineage(self, chosen: Selection, version: str) -> Lineage:
        """Where a model comes from that was trained tonight."""
        assert chosen.decision.kind != "reuse"
        walk, now = self._walk, datetime.now(UTC).isoformat()
        past = self.champion.lineage if self.champion and chosen.decision.kind == "refresh" else None
        seen = self.champion.lineage if self.champion and self._rehearses(chosen.decision) else None
        read = self.unseen if seen else walk.source
        return Lineage(
            version=version,
            parent=past.version if past else None,
            decision=chosen.decision.kind,
            reason=chosen.decision.reason,
            run_id=walk.spec.run_id,
            source=walk.spec.source,
            source_fingerprint=self._profile.fingerprint,
            code_version=code_version(),
            settings_digest=learning_digest(walk.settings),
            created_at=now,
            trained_at=past.trained_at if past else now,
            refreshes=past.refreshes + 1 if past else 0,
            rows=read.num_rows + (seen.rows if seen else 0),
            watermark={**(seen.watermark if seen else {}), **read.files_seen()},
        )


def rehearsal_of(training: pa.Table, holdout: pa.Table, settings: RunSettings) -> pa.Table | None:
    """Rows to keep beside a model that learned from these; None where every night brings the whole table."""
    if not settings.read.incremental or not settings.refresh.rehearsal_rows:
        return None
    both = pa.concat_tables([training, holdout]).unify_dictionaries()
    return _thinned(both, settings.refresh.rehearsal_rows, settings.read.seed)


def _thinned(table: pa.Table, most: int, seed: int) -> pa.Table:
    """At most so many rows, a uniform sample in their order."""
    if table.num_rows <= most:
        return table
    mask = np.zeros(table.num_rows, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(table.num_rows)[:most]] = True
    thinned: pa.Table = filter_rows(table, mask)
    return thinned
