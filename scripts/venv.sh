#!/bin/sh
# Make the virtual environment named by $1 with $PYTHON (3.11 or newer).
# Debian's python3 comes without ensurepip: as root the missing package is installed, otherwise named.
set -eu
dir=$1
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "moorage needs Python 3.11 or newer; $python is $("$python" -V). Set PYTHON=..." >&2
    exit 1
}
if [ -x "$dir/bin/pip" ]; then
    exit 0
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing python3-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
        echo "Python's venv module is incomplete here; install the package python3-venv first" >&2
        exit 1
    fi
fi
"$python" -m venv "$dir"
