#!/bin/sh
# Second half of a host's boot, as its process 1: what it sees of the machine, then sshd.
# In the environment: host, directory (upper/, work/, root/, boot_id, cgroups, binds, devices).
set -eu
hostname "$host"
options=lowerdir=/,upperdir=$directory/disk/upper,workdir=$directory/disk/work
mount -t overlay -o "$options" overlay "$directory/root"
cd "$directory/root"

mount -t proc proc proc
mount --bind "$directory/boot_id" proc/sys/kernel/random/boot_id
mount -t sysfs sysfs sys
while read -r kind place flags; do
    [ "$place" = /sys/fs/cgroup ] || [ -n "$(ls -A sys/fs/cgroup)" ] ||
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    mkdir -p ".$place"
    mount -t "$kind" ${flags:+-o "$flags"} "$kind" ".$place"
    # v2 gives controllers to children only of groups without processes.
    if grep -qs memory ".$place/cgroup.controllers"; then
        mkdir ".$place/init" && echo 1 >".$place/init/cgroup.procs"
    fi
done <"$directory/cgroups"

mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net run/sshd run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "dev/${number#*:}"; done
while read -r device; do
    [ ! -e "$device" ] || cp -a "$device" ".$device"
done <"$directory/devices"
for device in fuse net/tun; do [ ! -e "dev/$device" ] || chmod 666 "dev/$device"; done
while read -r path; do
    mount --bind "$path" ".$path"
    mount -o remount,bind,ro ".$path"
done <"$directory/binds"

pivot_root . .
umount -l .
cd /
if [ -e /etc/systemd/system/testbed-sshd.service ]; then
    # Services do not inherit this process's error output: sshd's words come this way.
    mkfifo /run/testbed
    cat /run/testbed >&2 3>&- &
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=testbed \
        /lib/systemd/systemd --unit=multi-user.target
fi
# The shell reaps orphans while it waits; sshd comes back as it would under a service manager.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ sh -c '
    while :; do
        /usr/sbin/sshd -D -e || true
        sleep 1
    done'
