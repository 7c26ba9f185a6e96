# One list of commands. Each makes what it needs: Python 3.11 to 3.13 and make are enough to begin with.
.DELETE_ON_ERROR:
.PHONY: demo env ui test lint bench lowest format clean
.NOTPARALLEL:

PYTHON ?= python3
SOURCE ?=
TARGET ?=
TIME_BUDGET ?=
export SOURCE TARGET TIME_BUDGET

# A uv on the PATH serves; otherwise one is installed beside the environment, so that syncing does not remove it.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := .venv/bin

demo: .venv/.synced  ## one nightly run under Airflow: make demo [SOURCE=table.parquet] [TARGET=column] [TIME_BUDGET=seconds]
	$(RUN)/python scripts/demo.py

ui: .venv/.synced  ## Airflow's user interface on http://127.0.0.1:8080 (PORT=… for another), with a finished run
	$(RUN)/python scripts/ui.py

env: .venv/.synced  ## secrets for docker-compose.yaml, into .env: make env [SOURCE=table.parquet]
	$(RUN)/python scripts/env.py

test: .venv/.synced  ## all tests: make test [ARGS="-k process"]
	$(RUN)/python -m pytest $(ARGS)

lint: .venv/.synced  ## style, types, and who may import whom
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: .venv/.synced  ## fidelity, utility and privacy on public tables, and DAG parse time, as JSON
	$(RUN)/python tests/benchmarks/bench.py $(ARGS)

lowest: .venv/.synced  ## the operators' tests under the oldest Airflow that is supported
	$(RUN)/python scripts/lowest_airflow.py

format: .venv/.synced
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

clean:
	rm -rf .venv .uv .airflow .lowest demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --extra all --python $(PYTHON)
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet uv
