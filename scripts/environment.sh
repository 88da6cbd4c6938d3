# Sourced by the other scripts. Creates .venv with the locked packages and this project, and puts it on PATH.
# EXTRAS: [dev] for the packages of requirements-dev.lock, too. PYTHON_VERSION: such as 3.13, for .venv-3.13.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv${PYTHON_VERSION:+-$PYTHON_VERSION}
candidates="python3 python3.13 python3.12 python3.11"
[ -z "${PYTHON_VERSION:-}" ] || candidates="python$PYTHON_VERSION"
python=""
for candidate in $candidates; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11, 1))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "python${PYTHON_VERSION:-3}: not found, or older than 3.11.1; install Python 3.11, 3.12 or 3.13" >&2
    exit 2
fi

locks=(requirements.lock)
[ -z "${EXTRAS:-}" ] || locks+=(requirements-dev.lock)
wanted=$(cat pyproject.toml "${locks[@]}" scripts/environment.sh | sha256sum)
if [ "$(cat "$venv/installed${EXTRAS:-}" 2>/dev/null)" != "$wanted" ]; then
    echo "== install into $venv (only once)" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # --no-compile: most of these files are never imported, and the others are compiled on import.
    install=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile)
    # Where pip's own --find-links has a build of torch without CUDA, take that, without the packages of CUDA.
    torch=$(grep -o '^torch==[^ ;]*' requirements.lock)
    left_out='^$'
    ! "${install[@]}" --no-index --no-deps "$torch+cpu" 2>/dev/null || left_out='^(cuda|nvidia|triton)'
    awk -v left_out="$left_out" '/^[a-z]/ { taken = $0 !~ left_out } taken' "${locks[@]}" >"$venv/requirements.txt"
    "${install[@]}" --require-hashes --only-binary :all: --requirement "$venv/requirements.txt"
    "${install[@]}" --no-deps --no-build-isolation --editable .
    echo "$wanted" >"$venv/installed${EXTRAS:-}"
fi
export PATH="$PWD/$venv/bin:$PATH"
# If this is set, every process compiles all modules that it imports: 20 seconds instead of 7.
unset PYTHONDONTWRITEBYTECODE
