#!/usr/bin/env bash
# Builds the image without any container registry: the Dockerfile beside this script, on a base made from Debian packages.
#
#   deploy/images/build.sh OUT.tar [NAME:TAG] [TARGET]   default localhost/hdfs-csi:latest, the image without a JVM
#
# OUT.tar is what `docker load`, `podman load`, `ctr -n k8s.io images import` and `skopeo copy docker-archive:OUT.tar ...` take. The
# target `jvm` needs HADOOP_HOME, an unpacked Hadoop. Needs root, debootstrap and buildah; HDFS_CSI_CACHE is where layers are kept.
set -euo pipefail
# In a mount namespace of its own, so that no mount of buildah's outlives it.
[ -n "${IN_MOUNT_NAMESPACE:-}" ] || exec env IN_MOUNT_NAMESPACE=1 unshare --mount "$0" "$@"

readonly out=$(realpath -m "${1:?usage: $0 OUT.tar [NAME:TAG] [TARGET]}") name=${2:-localhost/hdfs-csi:latest} target=${3:-}
readonly cache=${HDFS_CSI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hdfs-csi} suite=bookworm
readonly base=localhost/debian-base:$suite
scratch=$(mktemp -d "${TMPDIR:-/tmp}/hdfs-csi-image.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export BUILDAH_ISOLATION=chroot # needs no runtime, and no more of the kernel than chroot(2)
readonly store=(--root "$cache/buildah" --runroot "$scratch/run" --storage-driver "${STORAGE_DRIVER:-overlay}")

cd "$(dirname "$0")/../.."
say() { printf '%s\n' "image: $*" >&2; }

for program in debootstrap buildah; do
  command -v "$program" >/dev/null || { say "$program is missing; get it with: apt-get install debootstrap buildah"; exit 1; }
done
[ "$(id -u)" = 0 ] || { say "needs root, which debootstrap and buildah need for the files of others"; exit 1; }
mkdir -p "$cache"

if ! buildah "${store[@]}" inspect --type image "$base" >/dev/null 2>&1; then
  say "making $base from Debian packages (once)"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$scratch/root" >"$scratch/log" 2>&1 || { tail -20 "$scratch/log" >&2; exit 1; }
  rm -rf "$scratch"/root/var/cache/apt/* "$scratch"/root/var/lib/apt/lists/* "$scratch"/root/usr/share/{doc,man,locale}/*
  container=$(buildah "${store[@]}" from scratch)
  buildah "${store[@]}" add --quiet "$container" "$scratch/root" / >/dev/null
  buildah "${store[@]}" commit --quiet --rm "$container" "$base" >/dev/null
fi

options=(--build-arg "BASE=$base" --pull-never --layers --file deploy/images/Dockerfile --tag "$name")
[ -z "${SSL_CERT_FILE:-}" ] || options+=(--secret "id=ca-bundle,src=$SSL_CERT_FILE")
[ -z "$target" ] || options+=(--target "$target")
[ -z "${HADOOP_HOME:-}" ] || options+=(--build-context "hadoop=$HADOOP_HOME")
say "building $name"
buildah "${store[@]}" build "${options[@]}" . >&2
rm -f "$out"
buildah "${store[@]}" push --quiet "$name" "docker-archive:$out:$name" >/dev/null
say "$out: $(du -h "$out" | cut -f1)"
