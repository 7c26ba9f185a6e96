# Airflow with the locked dependencies of vae-ops, for docker-compose.yaml. vae-ops itself is not installed: engine,
# plugin and DAGs are mounted, so the image is built anew only when the lock changes.
FROM apache/airflow:3.3.2-python3.11

COPY --chown=airflow:0 pyproject.toml uv.lock /tmp/vae-ops/
RUN cd /tmp/vae-ops \
    && uv export --frozen --no-dev --no-emit-project --extra all --extra distributed --output-file requirements.txt \
    && uv pip install --no-cache --requirement requirements.txt \
    && rm -rf /tmp/vae-ops

# Named volumes take owner and mode from here; group 0 may write, whichever user runs.
RUN mkdir -p /opt/airflow/store /opt/airflow/auth /opt/airflow/engine /opt/airflow/tables \
    && chmod g+rwx /opt/airflow/store /opt/airflow/auth
