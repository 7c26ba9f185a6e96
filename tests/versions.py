"""Model versions and snapshots without a walk: just what registry, retention and upkeep look at."""

from typing import Any

from vae_ops.registry import Lineage, Registry
from vae_ops.store import OWN_LINE, Output, Run, Store

__all__ = ["promote", "publish", "run_of"]

NOW = "2026-11-23T08:00:00+00:00"
_ABOUT = {"source": "t", "source_fingerprint": "f", "code_version": "1", "settings_digest": "d", "created_at": NOW}


def promote(store: Store, version: str, *, parent: str | None = None, keep: int = 9, line: str = OWN_LINE) -> None:
    """Makes a version champion; the run that made it is gone afterwards."""
    run = store.run(f"cli-{version}")
    run.candidate.make_dirs()
    for name in ("model.json", "manifest.json"):
        run.candidate.child(name).write_atomic(b"{}")
    made: dict[str, Any] = {"parent": parent, "decision": "refresh" if parent else "retrain", "reason": "Why not."}
    lineage = Lineage(version=version, run_id=run.run_id, trained_at=NOW, **made, **_ABOUT)
    registry = Registry(store, line)
    registry.keep(run, lineage, {}, None)
    assert registry.promote(run, version, keep=keep) == ""
    store.remove_run(run)


def publish(output: Output, snapshot_id: str, version: str, *, published_at: str = NOW) -> None:
    """Makes something that looks like a snapshot of a version the latest one."""
    snapshot = output.snapshot(snapshot_id)
    snapshot.make_dirs()
    facts = {"snapshot_id": snapshot_id, "model_version": version, "verdict": "pass", "published_at": published_at}
    manifest = {**facts, "rows_source": 0, "rows_synthetic": 0, "files": []}
    output.manifest(snapshot).write_json(manifest)
    output.latest.write_json({**manifest, "snapshot": f"snapshots/{snapshot_id}"})


def run_of(store: Store, run_id: str, version: str = "") -> Run:
    """A run of a scheduler; with a version, it has trained it."""
    run = store.run(run_id)
    run.touch("train")
    if version:
        run.trained.write_json({"model_version": version})
    return run
