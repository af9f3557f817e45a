# Sourced by the other scripts: makes an environment where there is none and installs requirements that it lacks.
# PYTHON names the interpreter to make it with (default python3), 3.11 or newer; VENV the environment (default .venv).
# PIP_CONSTRAINT, pip's own variable, names a file of versions to install (tests/lowest.txt).

VENV=${VENV:-.venv}

make_environment() {
    local stamp requirements file
    stamp="$VENV/.installed-$(cat "$@" "${PIP_CONSTRAINT:-/dev/null}" | cksum | cut -d' ' -f1)"
    if [ ! -x "$VENV/bin/python" ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
            return 2
        }
        echo "Making the virtual environment $VENV"
        "${PYTHON:-python3}" -m venv "$VENV" || {
            rm -rf "$VENV"
            return 2
        }
    fi
    if [ ! -e "$stamp" ]; then
        echo "Installing $* into $VENV (once; about three minutes where packages come fast, 6 GB)"
        requirements=()
        for file in "$@"; do
            requirements+=(-r "$file")
        done
        # Errors alone: pip warns of caches, certificates and other indexes, none of which a reader can mend here.
        "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "${requirements[@]}"
        touch "$stamp"
    fi
}
