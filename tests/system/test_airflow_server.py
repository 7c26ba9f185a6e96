"""The shared server of the system tests: it runs a night, and lets in by role."""

import pytest

from tests.system.airflow_server import AirflowServer, ApiError

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_the_first_night_publishes(airflow_server: AirflowServer) -> None:
    night = "nightly_augmentation", airflow_server.first_night
    assert airflow_server.wait_for_run(*night) == "success", airflow_server.api.complaints(*night)
    published = airflow_server.api.record(*night, "augment.publish")
    assert published["rows_synthetic"] == 100
    assert published["snapshot_path"].startswith(str(airflow_server.output))


def test_a_viewer_sees_and_does_not_trigger(airflow_server: AirflowServer) -> None:
    assert airflow_server.api.send("GET", "/dags/nightly_augmentation", user="viewer")["is_paused"] is False
    with pytest.raises(ApiError) as refused:
        airflow_server.api.send("POST", "/dags/nightly_augmentation/dagRuns", {"logical_date": None}, user="viewer")
    assert refused.value.status == 403
