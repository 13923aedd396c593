#!/bin/sh
# Installs this project into /opt/medseg and makes the folders that the host's are mounted on.
set -eu
/opt/medseg/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --no-index /src
mkdir -p /work/data /work/outputs /work/source /work/input
chown 1000:1000 /work/outputs /work/data
