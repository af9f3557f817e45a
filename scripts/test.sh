#!/usr/bin/env bash
# Create the environment if needed, run the linters, then the tests on up to eight cores.
# Arguments go to pytest (-m slow, -k name, -n 0).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment requirements.txt tests/requirements.txt
"$VENV/bin/python" -m ruff check .
"$VENV/bin/python" -m ruff format --check .
"$VENV/bin/lint-imports" --no-cache
"$VENV/bin/python" -m mypy model misc
# One thread per process: more would compete for the cores.
OMP_NUM_THREADS=1 exec "$VENV/bin/python" -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"
