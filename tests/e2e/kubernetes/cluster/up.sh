#!/usr/bin/env bash
# From nothing to a Kubernetes node that is Ready, in namespaces of its own: no port, mount, interface, route or iptables rule shows
# outside, and ending one process ends all of it. Needs the binaries and images (binaries.py, images.py). Idempotent.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# The logs go with the cluster: what they say last is shown.
fail() { # reason
  echo "$1; what its components say last:" >&2
  tail -n 3 "$LOGS"/*.log | cut -c1-600 >&2
  exit 1
}

wait_ready() {
  for _ in $(seq 240); do
    init_pid >/dev/null || fail "the cluster's init has ended"
    if inside kubectl get --raw /readyz >/dev/null 2>&1 && inside kubectl -n default get sa default >/dev/null 2>&1 &&
      inside kubectl wait --for=condition=Ready "node/$NODE" --timeout=5s >/dev/null 2>&1; then return; fi
    sleep 0.5
  done
  fail "the node is not Ready in time"
}

if init_pid >/dev/null; then wait_ready; exit; fi
"$HERE/down.sh" # what a crash has left
mkdir -p "$PKI" "$LOGS" "$CONF/cni" /var/lib/kubelet /var/lib/containerd /var/lib/hdfs-csi

# --- certificates: one CA, one client certificate per component, RBAC names in the subjects
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=e2e-ca \
  -keyout "$PKI/ca.key" -out "$PKI/ca.crt" 2>/dev/null
cert() { # name subject [san]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$PKI/$1.key" -out "$PKI/$1.csr" 2>/dev/null
  openssl x509 -req -in "$PKI/$1.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 30 -out "$PKI/$1.crt" \
    -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth"; [ -z "${3:-}" ] || echo "subjectAltName=$3") 2>/dev/null
}
kubeconf() { # name
  cat >"$PKI/$1.conf" <<Y
{apiVersion: v1, kind: Config, current-context: e2e,
 clusters: [{name: e2e, cluster: {server: "https://$NODE_IP:6443", certificate-authority: $PKI/ca.crt}}],
 users: [{name: u, user: {client-certificate: $PKI/$1.crt, client-key: $PKI/$1.key}}],
 contexts: [{name: e2e, context: {cluster: e2e, user: u}}]}
Y
}
cert apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$NODE_IP,IP:$API_SVC_IP,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
cert admin /O=system:masters/CN=admin
cert controller-manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert proxy /CN=system:kube-proxy
cert kubelet "/O=system:nodes/CN=system:node:$NODE" "IP:$NODE_IP,DNS:$NODE"
for c in admin controller-manager scheduler proxy kubelet; do kubeconf $c; done
openssl genrsa -out "$PKI/sa.key" 2048 2>/dev/null

# --- configuration
cat >"$CONF/containerd.toml" <<Y
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true   # no CAP_SYS_RESOURCE on this machine: scores cannot be lowered
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$CONF/cni"
Y
cat >"$CONF/cni/10-e2e.conflist" <<Y
{"cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {"type": "ptp", "mtu": 1500, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]],
   "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni-ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
echo '# no name server' >"$CONF/resolv.conf"
printf '127.0.0.1 localhost\n%s %s\n' "$NODE_IP" "$NODE" >"$CONF/hosts"
cat >"$CONF/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false            # this machine is cgroup v1 (hybrid)
failSwapOn: false
oomScoreAdj: 0
featureGates: {CSIVolumeHealth: true}
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
resolvConf: $CONF/resolv.conf
imageGCHighThresholdPercent: 100   # images cannot be pulled again: never collect them
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 200Mi, nodefs.available: 1Gi, imagefs.available: 1Gi}
Y
cat >"$CONF/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/proxy.conf}
hostnameOverride: $NODE
mode: iptables
oomScoreAdj: 0
clusterCIDR: $POD_CIDR
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}  # read-only outside the first netns
Y

# --- things outside the namespaces: a parent cgroup, and the sysctls that the kubelet overwrites
for hierarchy in $(hierarchies); do
  mkdir -p "$hierarchy$CGROUP"
  for file in cpuset.cpus cpuset.mems; do [ ! -e "$hierarchy$CGROUP/$file" ] || cat "$hierarchy$file" >"$hierarchy$CGROUP/$file"; done
done
for name in vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes; do
  echo "$name=$(sysctl -n $name)"
done >"$STATE/sysctl.saved"

# --- start
unshare --fork --pid --mount --net --uts --ipc --mount-proc --propagation private \
  setsid "$HERE/init.sh" >"$LOGS/init.log" 2>&1 </dev/null &
parent=$! pid=
for _ in $(seq 50); do
  pid=$(tr -d ' ' <"/proc/$parent/task/$parent/children") && [ -n "$pid" ] && break
  sleep 0.1
done
echo "$pid $(start_time "$pid")" >"$INIT_PID_FILE"
for _ in $(seq 300); do inside ctr version >/dev/null 2>&1 && break; sleep 0.2; done
for image in "$IMAGES"/*.tar; do
  inside ctr -n k8s.io images import "$image" >>"$LOGS/import.log" 2>&1 || fail "$image is not imported"
done
wait_ready
