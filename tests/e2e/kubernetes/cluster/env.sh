# What the scripts of this folder share: where things are, and how to get into the cluster's namespaces.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${HDFS_CSI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hdfs-csi}/kubernetes
BIN=$CACHE/bin IMAGES=$CACHE/images
STATE=$CACHE/state # everything that a running cluster writes; removed by down.sh
PKI=$STATE/pki LOGS=$STATE/logs CONF=$STATE/conf
NODE=node-1
NODE_IP=10.10.0.1 # on a bridge in the cluster's own network namespace
POD_CIDR=10.244.0.0/16
SVC_CIDR=10.96.0.0/16 API_SVC_IP=10.96.0.1
CGROUP=hdfs-csi-e2e           # parent of all pods, in every hierarchy
INIT_PID_FILE=$STATE/init.pid # "pid starttime" of the cluster's PID 1, as the host sees it
export KUBECONFIG=$PKI/admin.conf
export PATH=$BIN:$PATH

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# The pid of the cluster's PID 1, only while it is still the process that was started.
init_pid() {
  local pid started
  read -r pid started 2>/dev/null <"$INIT_PID_FILE" || return 1
  [ -n "$pid" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# Run a command inside. Not `ip netns exec`: that makes a mount namespace for each process, and breaks Bidirectional mounts.
inside() {
  local pid
  pid=$(init_pid) || { echo "the cluster is down" >&2; return 1; }
  nsenter -t "$pid" -n -m -p -u -i --wdns="$PWD" -- "$@"
}

# The hierarchies of cgroup v1, or the one of v2.
hierarchies() { if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup/; else echo /sys/fs/cgroup/*/; fi; }
