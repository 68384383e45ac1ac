#!/bin/sh
# Make an empty virtual environment with pip in it, also where the system has no python3-venv.
# usage: tools/make_environment.sh PYTHON FOLDER
set -eu
python=$1
folder=$2
pip=$(grep '^pip==' constraints/common.txt)

"$python" -m venv --without-pip "$folder"
# Debian puts ensurepip into python3-venv; its pip can install itself into another environment.
"$folder/bin/python" -m ensurepip --default-pip ||
    "$python" -m pip --python "$folder/bin/python" install --quiet "$pip" || {
    echo 'no pip for the virtual environment; run: sudo apt-get install python3-pip python3-venv' >&2
    exit 1
}
"$folder/bin/python" -m pip install --quiet --progress-bar off "$pip"
