#!/usr/bin/env bash
# Makes the virtual environment: install.sh FOLDER [PYTHON]. Prints one line per stage; pip's own words only on failure.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
wanted=${2:-}

works() { # a Python that is new enough, starts (a version manager's stand-in may not) and can make environments
    "$1" -c 'import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${wanted:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if works "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "payonce needs Python 3.11 or newer with the venv module (on Debian: apt-get install python3-venv)." >&2
    return 4
}

quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then cat "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "environment: making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
if "$venv/bin/python" -c 'import sys; raise SystemExit(sys.version_info >= (3, 12))'; then
    pins=requirements/dev.txt
else
    pins=requirements/dev-py312.txt
fi
echo "environment: installing $(grep -c == "$pins") packages from $pins (about half a minute the first time)"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -r "$pins"
echo "environment: linking this checkout"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
