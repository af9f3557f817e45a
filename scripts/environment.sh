# Sourced by the other scripts: creates the environment if there is none and installs missing requirements.
# PYTHON: interpreter that creates it (default python3), 3.11 or newer. VENV: the environment's folder (default .venv).
# PIP_CONSTRAINT, pip's own variable: a file of versions to install (tests/lowest.txt).

VENV=${VENV:-.venv}

make_environment() {
    local stamp requirements file
    stamp="$VENV/.installed-$(cat "$@" "${PIP_CONSTRAINT:-/dev/null}" | cksum | cut -d' ' -f1)"
    if [ ! -x "$VENV/bin/python" ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
            return 2
        }
        echo "Creating the virtual environment $VENV"
        "${PYTHON:-python3}" -m venv "$VENV" || {
            rm -rf "$VENV"
            return 2
        }
    fi
    if [ ! -e "$stamp" ]; then
        echo "Installing $* into $VENV (once; 6 GB, about three minutes on a fast connection)"
        requirements=()
        for file in "$@"; do
            requirements+=(-r "$file")
        done
        # Errors only: pip's warnings about caches, certificates and indexes cannot be fixed here.
        "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "${requirements[@]}"
        touch "$stamp"
    fi
}
