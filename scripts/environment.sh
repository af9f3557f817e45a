# Sourced by the other scripts: makes .venv where there is none and installs requirements that it has not had yet.
# PYTHON names the interpreter to make it with (default python3); 3.11 or newer.

make_environment() {
    local stamp
    stamp=".venv/.installed-$(cat "$@" | cksum | cut -d' ' -f1)"
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
            return 2
        }
        echo "Making the virtual environment .venv"
        "${PYTHON:-python3}" -m venv .venv || {
            rm -rf .venv
            return 2
        }
    fi
    if [ ! -e "$stamp" ]; then
        echo "Installing $* into .venv (once; about three minutes)"
        # shellcheck disable=SC2046
        .venv/bin/python -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@")
        touch "$stamp"
    fi
}
