#!/usr/bin/env bash
# A real Ceph of one node (monitor, OSD in memory, gateway) on this machine, for tests. Nothing of it outlives DIR.
# usage: ceph-one-node.sh DIR start GATEWAY_PORT MONITOR_PORT MONITOR_PORT_V1 | ceph-one-node.sh DIR stop
# The gateway's user has the keys calotypekey and calotypesecret.
set -euo pipefail
dir=$1 action=$2

stop() {
  for pid in "$dir"/run/*.pid; do
    [ -e "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
  for pid in "$dir"/run/*.pid; do
    for _ in $(seq 100); do
      { [ -e "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; } || break
      sleep .1
    done
  done
}

if [ "$action" = stop ]; then
  stop
  exit 0
fi

gateway=$3 monitor=$4 monitor_v1=$5
mkdir -p "$dir"/{mon,osd,run,log,rgw}
fsid=$(cat /proc/sys/kernel/random/uuid)
# Without authentication inside the cluster the gateway wants to be told not to encrypt, or waits for 300 s.
cat > "$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$monitor,v1:127.0.0.1:$monitor_v1]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 4294967296
run dir = $dir/run
admin socket = $dir/run/\$name.asok
log file = $dir/log/\$name.log
pid file = $dir/run/\$name.pid
crash dir = $dir/log
mon data = $dir/mon
osd data = $dir/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$gateway
rgw data = $dir/rgw
ms mon client mode = crc
rgw enable apis = s3, admin
rgw dns name = localhost
CONF
export CEPH_CONF=$dir/ceph.conf
limited() { timeout 60 "$@"; }
limited monmaptool --create --addv a "[v2:127.0.0.1:$monitor,v1:127.0.0.1:$monitor_v1]" --fsid "$fsid" "$dir/monmap" >/dev/null
limited ceph-mon --mkfs -i a --monmap "$dir/monmap"
limited ceph-mon -i a
limited ceph --connect-timeout 30 osd create >/dev/null
limited ceph-osd --mkfs -i 0
limited ceph osd crush add osd.0 1.0 host=h root=default >/dev/null 2>&1
limited ceph-osd -i 0
for _ in $(seq 150); do
  limited ceph osd stat 2>/dev/null | grep -q '1 up' && break
  sleep .2
done
limited radosgw -n client.rgw -c "$dir/ceph.conf"
for _ in $(seq 200); do
  curl -s -o /dev/null "http://127.0.0.1:$gateway/" && break
  sleep .3
done
limited radosgw-admin user create --uid=calotype --display-name=calotype \
  --access-key=calotypekey --secret-key=calotypesecret >/dev/null
