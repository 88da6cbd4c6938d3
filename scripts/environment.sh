# Sourced by the other scripts: makes .venv, with the locked packages and this project in it. EXTRAS: see pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed; none of python3, python3.11, python3.12, python3.13 is one" >&2
    exit 2
fi

stamp=.venv/installed${EXTRAS:-}
wanted=$(cat pyproject.toml requirements.lock | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== install into .venv, once" >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # Not compiled: most of these files are never imported, and those that are get compiled then.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
        --constraint requirements.lock --editable ".${EXTRAS:-}"
    echo "$wanted" >"$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
# Where this is set, every process compiles all that it imports: 20 seconds instead of 7.
unset PYTHONDONTWRITEBYTECODE
