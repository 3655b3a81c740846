#!/usr/bin/env bash
# Install the Debian packages of those programs that are missing: system-packages.sh PROGRAM:PACKAGE...
# PROGRAM is a name, or a command that succeeds where the package is there.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

missing=()
for pair in "$@"; do
  program=${pair%:*}
  case $program in
    *' '*) bash -c "$program" >/dev/null 2>&1 || missing+=("${pair##*:}") ;;
    *) command -v "$program" >/dev/null || missing+=("${pair##*:}") ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

say "needed from the system and not there: ${missing[*]}"
cannot() {
  say "$1"
  say "please install: ${missing[*]}   (Debian: apt-get install ${missing[*]}), then run this again"
  exit 1
}
command -v apt-get >/dev/null || cannot "there is no apt-get here to install it with"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || cannot "it cannot be installed: this is not root, and there is no sudo"
  as_root=(sudo)
  [ -t 0 ] || as_root+=(-n) # no one is there to type a password
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" >&2; }
say "installing with: ${as_root[*]:+${as_root[*]} }apt-get install ${missing[*]}"
apt install -y --no-install-recommends "${missing[@]}" ||
  { say "trying again with a fresh list of packages"; apt update && apt install -y --no-install-recommends "${missing[@]}"; } ||
  cannot "apt-get could not install it"
