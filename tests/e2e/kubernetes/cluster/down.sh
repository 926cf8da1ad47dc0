#!/usr/bin/env bash
# A cluster, or what is left of one, is taken down: processes, mounts, cgroups, state. Binaries and images stay. Idempotent.
set -uo pipefail
. "$(dirname "$0")/env.sh"

if pid=$(init_pid); then
  # FUSE connections first: who waits for one whose daemon is ended at the same time could not be killed.
  for connection in $(inside sh -c 'mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections
      sed -n "s/^[0-9]* [0-9]* 0:\([0-9]*\) .* fuse[^ ]* .*/\1/p" /proc/self/mountinfo | sort -u' 2>/dev/null); do
    inside sh -c "echo 1 >/sys/fs/fuse/connections/$connection/abort" 2>/dev/null
  done
  kill -KILL "$pid" # the kernel ends everything in its PID namespace with it
  for _ in $(seq 300); do
    [ -d "/proc/$pid" ] || break
    sleep 0.1
  done
  [ ! -d "/proc/$pid" ] || { echo "process $pid of the cluster does not end" >&2; exit 1; }
fi
[ ! -s "$STATE/sysctl.saved" ] || sysctl -qp "$STATE/sysctl.saved"
for hierarchy in $(hierarchies); do
  [ ! -d "$hierarchy$CGROUP" ] || find "$hierarchy$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null
done
rm -rf "$STATE"
rmdir /var/lib/kubelet /var/lib/containerd /var/lib/hdfs-csi 2>/dev/null
for hierarchy in $(hierarchies); do
  [ ! -d "$hierarchy$CGROUP" ] || { echo "a cgroup is left: $hierarchy$CGROUP" >&2; exit 1; }
done
if grep -q "$STATE" /proc/mounts; then echo "mounts are left below $STATE" >&2; exit 1; fi
exit 0
