#!/bin/sh
# Makes .venv and installs the locked packages, when the lock is not the one installed last. Run from the root.
set -eu

LOCK=requirements-dev.lock
INSTALLED=.venv/installed.lock
LOG=.venv/install.log

fail() {
    echo "storyloom: $1" >&2
    exit 1
}

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if works "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not Python 3.11 or newer: name one that is, for example PYTHON=/usr/bin/python3.11."
    fi
    fail "No Python 3.11 or newer was found: install one, or name it, for example make run PYTHON=/opt/python3.11/bin/python3."
}

if cmp -s "$LOCK" "$INSTALLED" && works .venv/bin/python; then
    exit 0
fi
if ! works .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    # --clear, as what stands there is broken or belongs to a Python that is gone.
    if ! made=$("$python" -m venv --clear .venv 2>&1); then
        rm -rf .venv
        fail "$python can't make .venv ($(echo "$made" | grep . | tail -n 1)): on Debian or Ubuntu, install python3-venv."
    fi
fi
echo "Installing the locked packages into .venv (at the first time this takes a minute or two)"
if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input --require-hashes -r "$LOCK" >"$LOG" 2>&1; then
    reason=$(grep '^ERROR' "$LOG" | tail -n 1 | cut -c 1-200)
    fail "The packages could not be installed (${reason:-see the log}): check the network and run it again; the log is $LOG."
fi
cp "$LOCK" "$INSTALLED"
