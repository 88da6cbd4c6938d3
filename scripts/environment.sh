# Sourced by the other scripts. Creates .venv with the locked packages and this project, and puts it on PATH.
# EXTRAS: extras of pyproject.toml, such as [dev]. PYTHON_VERSION: such as 3.13; the environment is then .venv-3.13.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv${PYTHON_VERSION:+-$PYTHON_VERSION}
candidates="python3 python3.13 python3.12 python3.11"
[ -z "${PYTHON_VERSION:-}" ] || candidates="python$PYTHON_VERSION"
python=""
for candidate in $candidates; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "python${PYTHON_VERSION:-3}: not found, or older than 3.11; install Python 3.11, 3.12 or 3.13" >&2
    exit 2
fi

wanted=$(cat pyproject.toml requirements.lock | sha256sum)
# [dev] contains all other extras.
if ! { cat "$venv/installed${EXTRAS:-}" "$venv/installed[dev]" 2>/dev/null || true; } | grep -qxF "$wanted"; then
    echo "== install into $venv (only once)" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # --no-compile: most of these files are never imported, and the others are compiled on import.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
        --constraint requirements.lock --editable ".${EXTRAS:-}"
    echo "$wanted" >"$venv/installed${EXTRAS:-}"
fi
export PATH="$PWD/$venv/bin:$PATH"
# If this is set, every process compiles all modules that it imports: 20 seconds instead of 7.
unset PYTHONDONTWRITEBYTECODE
