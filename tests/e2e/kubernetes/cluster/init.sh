#!/usr/bin/env bash
# PID 1 of the cluster's own namespaces (pid, mount, net, uts, ipc); started by up.sh. When it ends, the kernel ends every process,
# and drops every mount, interface and iptables rule in here.
set -euo pipefail
. "$(dirname "$0")/env.sh"

mount --make-rshared / # Bidirectional mounts need shared propagation
mount -t tmpfs -o mode=755 tmpfs /run
for folder in kubelet containerd hdfs-csi; do
  mkdir -p "$STATE/$folder"
  mount --bind "$STATE/$folder" "/var/lib/$folder"
done
for file in hosts resolv.conf; do mount --bind "$CONF/$file" "/etc/$file"; done
hostname "$NODE"
ip link set lo up
ip link add node0 type bridge
ip addr add "$NODE_IP/24" dev node0
ip link set node0 up
ip route add default dev node0 # so that addresses of services route far enough to be translated
sysctl -qw net.ipv4.ip_forward=1

# A component ends where another, that it needs, is not there within seconds, and is started again, as systemd would.
run() {
  local name=$1
  shift
  while true; do
    "$@" >>"$LOGS/$name.log" 2>&1 &
    echo "$!" >"$STATE/$name.pid"
    wait "$!" || true
    echo "$name has ended" >>"$LOGS/init.log"
    sleep 1
  done &
}

run containerd containerd --config "$CONF/containerd.toml"
run etcd etcd --name e2e --data-dir "$STATE/etcd" --unsafe-no-fsync \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --log-level warn
run apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 \
  --advertise-address "$NODE_IP" --secure-port 6443 --service-cluster-ip-range "$SVC_CIDR" \
  --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" --client-ca-file "$PKI/ca.crt" \
  --kubelet-client-certificate "$PKI/admin.crt" --kubelet-client-key "$PKI/admin.key" \
  --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
  --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file "$PKI/sa.key" --service-account-signing-key-file "$PKI/sa.key" \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged=true --profiling=false
run controller-manager kube-controller-manager --kubeconfig "$PKI/controller-manager.conf" \
  --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/sa.key" --use-service-account-credentials \
  --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" --leader-elect=false --profiling=false
run scheduler kube-scheduler --kubeconfig "$PKI/scheduler.conf" --leader-elect=false --profiling=false
run proxy kube-proxy --config "$CONF/proxy.yaml"
run kubelet kubelet --config "$CONF/kubelet.yaml" --kubeconfig "$PKI/kubelet.conf" --hostname-override "$NODE" \
  --node-ip "$NODE_IP" --root-dir /var/lib/kubelet

while true; do
  sleep 1 # bash also reaps orphans here
done
