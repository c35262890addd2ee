#!/bin/sh
# Run examples/digits on this machine, in a MOORAGE_HOME of its own, and say where everything is.
# The volume outlives the run: a second `make demo` finds its environment and its checkpoint there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
moorage="$root/.venv/bin/moorage"
demo="$root/.demo"
mkdir -p "$demo/volume"
MOORAGE_HOME="$demo/home"
export MOORAGE_HOME
trap '"$moorage" server stop' EXIT

cd "$root/examples/digits"
"$moorage" apply -y -f digits.yml -e "DIGITS_VOLUME=$demo/volume"

echo
echo "results    $demo/volume/results/metrics.json"
echo "picture    $demo/volume/results/confusion.png"
echo "timeline   MOORAGE_HOME=$MOORAGE_HOME $moorage show digits"
echo
"$moorage" show digits
