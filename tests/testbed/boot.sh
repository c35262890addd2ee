#!/bin/sh
# First half of a host's boot, still seen from outside: control groups, namespaces, the cable.
# boot.sh GUARDIAN HOST DIRECTORY ADDRESS MAC -- GROUP...
set -eu
guardian=$1 host=$2 directory=$3 address=$4 mac=$5
here=$(dirname "$0")
shift 6
for group; do echo 0 >"$group/cgroup.procs"; done
export here guardian host directory address mac
exec unshare --net --uts --ipc --mount --cgroup --propagation private sh -euc '
    # The switch forgets the cable of an earlier boot only when its namespace has gone.
    nsenter --net="/proc/$guardian/ns/net" ip -batch - <<END
link add name $host type veth peer name eth0 address $mac netns $$
link set $host master switch up
END
    ip -batch - <<END
link set lo up
addr add $address/24 dev eth0
link set eth0 up
END
    uptime=$(cut -d. -f1 /proc/uptime)
    exec unshare --time --monotonic "-$uptime" --boottime "-$uptime" \
        --pid --fork --kill-child sh "$here/init.sh"'
