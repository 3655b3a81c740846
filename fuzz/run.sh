#!/usr/bin/env bash
# Fuzz every target in turn, FUZZ_SECONDS each, or only those that are named. Fails if there are findings.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
packages=fuzz/.packages
seconds=${FUZZ_SECONDS:-60}

say() { printf 'fuzz: %s\n' "$*" >&2; }

if [ ! -f "$packages/.ready" ] || [ fuzz/requirements.lock -nt "$packages/.ready" ]; then
  rm -rf "$packages"
  "$python" -m pip -qq --disable-pip-version-check --no-input install --only-binary :all: --require-hashes --no-deps \
    --target "$packages" -r fuzz/requirements.lock ||
    { say "atheris cannot be installed here: it has wheels for Linux on x86-64 and some others, see fuzz/requirements.lock"; exit 1; }
  touch "$packages/.ready"
fi
export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$python" -m fuzz)
[ ${#targets[@]} -gt 0 ] || { say "no targets"; exit 1; }
found=()
mkdir -p fuzz/logs
for target in "${targets[@]}"; do
  log=fuzz/logs/$target.log
  nice -n 10 "$python" -m fuzz "$target" "$seconds" >"$log" 2>&1 || found+=("$target")
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 || true)
  runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log" | tail -n 1)
  memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log" | tail -n 1)
  say "$(printf '%-16s %10s runs, %s, %s MB' "$target" "${runs:-?}" "${coverage:-no coverage}" "${memory:-?}")"
done
[ ${#found[@]} -eq 0 ] || { say "findings: ${found[*]}; see fuzz/logs and fuzz/findings"; exit 1; }
