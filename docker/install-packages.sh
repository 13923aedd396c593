#!/bin/sh
# Installs a lock into /opt/medseg, a virtual environment that also sees what the base image brings (its Paddle).
# Not into the base's own Python: what distutils installed there, pip can neither upgrade nor remove.
# --without-pip: the official GPU image has no ensurepip; the base's pip is used, through the environment.
set -eu
[ -x /opt/medseg/bin/python ] || python3 -m venv --without-pip --system-site-packages /opt/medseg
# A build secret, since a mirror's address may hold a password; where there is none, pip does without.
export PIP_CONFIG_FILE=/run/secrets/pip.conf
exec /opt/medseg/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r "$1"
