#!/usr/bin/env bash
# Makes the environment from nothing and runs the tests; arguments go to pytest (-m slow, -k name, ...).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment requirements.txt tests/requirements.txt
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
exec .venv/bin/python -m pytest "$@"
