#!/usr/bin/env bash
# Resolves the newest versions that pyproject.toml allows in a throw-away environment and writes the pins: pin.sh FOLDER [PYTHON].
set -euo pipefail
cd "$(dirname "$0")/.."
python=${2:-$1/bin/python}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
if "$python" -c 'import sys; raise SystemExit(sys.version_info >= (3, 12))'; then
    target=requirements/dev.txt title="Python 3.11 with Django 5.2"
else
    target=requirements/dev-py312.txt title="Python 3.12 and newer with Django 6"
fi
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input ".[dev]"
{
    echo "# Pinned for development on $title. Made by: make pins"
    # Plain name==version lines only: where a package came from is the installing machine's business.
    "$scratch/venv/bin/python" -m pip freeze --disable-pip-version-check --exclude django-payonce | grep -E '^[A-Za-z0-9_.-]+==[^ ]+$'
} >"$scratch/pins"
mv "$scratch/pins" "$target"
echo "$target: $(grep -c == "$target") packages"
