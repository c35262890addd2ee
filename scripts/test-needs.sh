#!/bin/sh
# Install the system packages that tests use, as root on Debian; elsewhere name what is missing
# (those tests are then skipped, with the reason).
set -eu
missing=""
need() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need git git
need setpriv util-linux
need mount mount
need ps procps
need busybox busybox-static
need docker-registry docker-registry
# A container engine, of those that jobs may run by; docker and apptainer are tested where they are.
need podman podman
need runc runc
# What starts ranks on several nodes.
need mpirun openmpi-bin
# What hosts on this machine are made of (tests/testbed).
need ip iproute2
need nft nftables
need ssh openssh-client
need sshd openssh-server
need sudo sudo
# Debian keeps the server's programs off PATH.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need initdb postgresql
[ "${1:-}" != bench ] || {
    need rsync rsync
    need slurmctld slurm-wlm
    need munged munge
    # Peers of bucket mounts, and what reads here and there in them.
    need s3fs s3fs
    need fio fio
}
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    # Tests start servers of their own: the package need not make one and occupy its port.
    case "$missing" in *postgresql*)
        clusters=/etc/postgresql-common/createcluster.conf
        mkdir -p "${clusters%/*}"
        [ -e $clusters ] || echo "create_main_cluster = false" >$clusters ;;
    esac
    case "$missing" in *docker-registry*)
        # Nor need a registry run on this machine.
        mkdir -p /etc/systemd/system
        [ -e /etc/systemd/system/docker-registry.service ] ||
            ln -s /dev/null /etc/systemd/system/docker-registry.service ;;
    esac
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "missing system packages:$missing (the tests that need them are skipped)" >&2
fi
