#!/usr/bin/env bash
# Make .venv with exactly what requirements.lock names, and this project in it. Running it again is harmless.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

python=""
for candidate in python3.11 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 or newer is wanted and was not found; on Debian: apt-get install python3"
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# A .venv that another Python made, or that was never finished, is made anew.
if [ -d .venv ] && ! .venv/bin/python -c "import sys, pip; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
  say "the .venv that is here cannot be used; making it anew"
  rm -rf .venv
fi
if [ ! -d .venv ]; then
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "this Python cannot make virtual environments"
    bash scripts/system-packages.sh "python$version -c 'import ensurepip, venv':python$version-venv"
  fi
  say "making .venv with Python $version"
  "$python" -m venv .venv || { rm -rf .venv; exit 1; }
fi

say "installing what requirements.lock names (a few minutes the first time)"
pip=(.venv/bin/python -m pip -qq --disable-pip-version-check --no-input)
"${pip[@]}" install --require-hashes --no-deps -r requirements.lock
"${pip[@]}" install --no-deps --no-build-isolation -e .
say "done"
