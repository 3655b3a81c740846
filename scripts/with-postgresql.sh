#!/usr/bin/env bash
# Run a command with a PostgreSQL server of its own: with-postgresql.sh COMMAND [ARGUMENT...]
# The server lives in a temporary folder, under an unprivileged user, and is gone afterwards. The command finds it in
# TEST_POSTGRESQL_URL: postgresql://user:password@127.0.0.1:port/database, whose user may create databases.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'postgresql: %s\n' "$*" >&2; }
[ $# -gt 0 ] || { say "which command? with-postgresql.sh COMMAND [ARGUMENT...]"; exit 2; }

newest() { find /usr/lib/postgresql -maxdepth 3 -name initdb -path '*/bin/*' 2>/dev/null | sort -V | tail -n 1; }
[ -n "$(newest)" ] || bash scripts/system-packages.sh "test -n \"\$(find /usr/lib/postgresql -name initdb 2>/dev/null)\"":postgresql
programs=$(dirname "$(newest)")

as=()
owner=$(id -un)
if [ "$(id -u)" -eq 0 ]; then # PostgreSQL refuses to run as root; its Debian package brings this user
  owner=postgres
  as=(setpriv --reuid="$owner" --regid="$owner" --init-groups --)
fi
folder=$(mktemp -d /tmp/calotype-postgresql-XXXXXX)
chown "$owner" "$folder"
end() {
  "${as[@]}" "$programs/pg_ctl" --pgdata "$folder/data" --mode immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf '%s' "$password" | "${as[@]}" tee "$folder/password" >/dev/null
(
  cd "$folder" # a folder that the server's user may enter
  "${as[@]}" "$programs/initdb" --pgdata data --username calotype --pwfile password --auth scram-sha-256 \
    --encoding UTF8 --locale C --no-sync >initdb.log || { cat initdb.log >&2; exit 1; }
  "${as[@]}" "$programs/pg_ctl" --pgdata data --log server.log --wait --timeout 60 --options \
    "-h 127.0.0.1 -p $port -k $folder -c fsync=off -c max_connections=200" start >/dev/null || { cat server.log >&2; exit 1; }
)
export TEST_POSTGRESQL_URL="postgresql://calotype:$password@127.0.0.1:$port/postgres"
say "a server runs on port $port"
status=0
"$@" || status=$?
exit "$status"
