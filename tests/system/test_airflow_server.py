"""The shared server of the system tests: it serves, runs a night, and lets in by role."""

import pytest

from tests.system.airflow_server import ANY_GATE, TINY, AirflowServer, ApiError

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_a_night_that_is_triggered_over_rest_publishes(airflow_server: AirflowServer) -> None:
    run_id = airflow_server.api.trigger("nightly_augmentation", rows=100, settings=TINY | ANY_GATE)
    state = airflow_server.wait_for_run("nightly_augmentation", run_id)
    assert state == "success", airflow_server.api.complaints("nightly_augmentation", run_id)
    published = airflow_server.api.record("nightly_augmentation", run_id, "augment.publish")
    assert published["rows_synthetic"] == 100
    assert published["snapshot_path"].startswith(str(airflow_server.output))


def test_a_viewer_sees_and_does_not_trigger(airflow_server: AirflowServer) -> None:
    assert airflow_server.api.send("GET", "/dags/nightly_augmentation", user="viewer")["is_paused"] is False
    with pytest.raises(ApiError) as refused:
        airflow_server.api.send("POST", "/dags/nightly_augmentation/dagRuns", {"logical_date": None}, user="viewer")
    assert refused.value.status == 403
