#!/bin/sh
# Install every pinned package, PyTorch beside the others: each of the two is half of the work.
# The pins name all dependencies, so that pip need not look for any.
# usage: tools/install_pins.sh PYTHON FILE...
set -u
python=$1
shift

install() {
    "$python" -m pip --disable-pip-version-check --no-input install --quiet --no-compile \
        --progress-bar off --no-deps "$@"
}

others=$(mktemp)
trap 'rm -f "$others"' EXIT
grep -hv '^torch==' "$@" > "$others"
install "$(grep -h '^torch==' "$@")" &
torch=$!
install -r "$others" || { wait "$torch"; exit 1; }
wait "$torch"
