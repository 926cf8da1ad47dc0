#!/usr/bin/env bash
# Brings this machine to where the project can run: Debian packages, .venv, and what tests need besides.
#
#   tests/support/setup.sh install   what a mount needs: libfuse, Kerberos library, .venv with locked packages
#   tests/support/setup.sh check     also the dev packages: linters, type checker, pytest
#   tests/support/setup.sh demo      what a mount needs, Java, Maven and Hadoop's jars: a real HDFS on this machine
#   tests/support/setup.sh test      all of these, and a JDK, Go, cargo, a Kerberos KDC, git, rsync and vim
#   tests/support/setup.sh bench     also rclone, to compare with
#   tests/support/setup.sh e2e       all of test's, and what a Kubernetes node and images are made with
#
# Steps that are done already cost nothing. What is missing is installed by apt-get where this runs as root, and
# otherwise named together with the command that gets it.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly python=${PYTHON:-python3}
readonly venv=.venv
missing=() # Debian packages

say() { printf '%s\n' "setup: $*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# need PACKAGE CHECK...: note PACKAGE unless the command CHECK succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

shared_library() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1"; }
python_header() { "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; }
java_program() { if [ -n "${JAVA_HOME:-}" ]; then echo "$JAVA_HOME/bin/java"; else command -v java; fi; }
# Hadoop 3.5 needs Java 17.
java_recent() { "$(java_program)" -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])'; }
java_headers() { [ -f "$(dirname "$(dirname "$(readlink -f "$(java_program)")")")/include/jni.h" ]; }
# Cargo before 1.68 knows only the old form of the crate index.
cargo_recent() { cargo --version | awk '{ split($2, v, "."); exit !(v[1] > 1 || v[2] >= 68) }'; }

# The packages for one level; each level includes the ones before.
need_for_install() {
  need python3 have "$python"
  need python3-venv "$python" -c 'import venv, ensurepip'
  need python3-dev python_header
  need gcc have gcc
  need pkg-config have pkg-config
  need libfuse3-dev pkg-config --exists fuse3
  need libkrb5-dev have krb5-config
  need fuse3 have fusermount3
  need libkrb5-3 shared_library libkrb5.so.3
  need libgssapi-krb5-2 shared_library libgssapi_krb5.so.2
}

need_for_demo() {
  need openjdk-17-jre-headless java_recent
  need maven have mvn
}

need_for_test() {
  need openjdk-17-jdk-headless java_headers
  need golang-go have go
  need krb5-kdc test -x /usr/sbin/krb5kdc
  need krb5-admin-server test -x /usr/sbin/kadmin.local
  need krb5-user have kinit
  need git have git
  need rsync have rsync
  need vim have vim
  if ! cargo_recent >/dev/null 2>&1; then
    # Debian 12's own cargo is 1.65; its security archive has a recent one under another name.
    if apt-cache show cargo-web >/dev/null 2>&1; then missing+=(cargo-web); else missing+=(cargo); fi
  fi
}

need_for_bench() { need rclone have rclone; }

need_for_e2e() {
  need containerd have containerd
  need runc have runc
  need containernetworking-plugins test -x /usr/lib/cni/ptp
  need iptables have iptables
  need conntrack have conntrack
  need iproute2 have ip
  need procps have sysctl
  need openssl have openssl
  need debootstrap have debootstrap
  need buildah have buildah
}

# packages NEED...: install what these functions find missing.
packages() {
  missing_by "$@"
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! have apt-get; then
    say "missing: ${missing[*]} (names of Debian packages); install them with this system's package manager"
    exit 1
  elif [ "$(id -u)" != 0 ]; then
    say "missing: ${missing[*]}"
    say "install with: sudo apt-get update && sudo apt-get install ${missing[*]}"
    exit 1
  fi
  apt-get update -qq >&2
  missing_by "$@" # some names depend on apt's lists
  say "installing Debian packages: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
  missing_by "$@"
  if [ ${#missing[@]} -gt 0 ]; then
    say "installed, but what they are for is still not found: ${missing[*]}"
    exit 1
  fi
}

missing_by() {
  missing=()
  local check
  for check in "$@"; do "$check"; done
}

# once NAME FILES... -- COMMAND...: run COMMAND unless it succeeded before with the same content of FILES.
once() {
  local stamp=$venv/.setup-$1 files=()
  shift
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  local now
  now=$(sha256sum "${files[@]}")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then return 0; fi
  "$@"
  printf '%s\n' "$now" >"$stamp"
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

make_venv() {
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null; then return 0; fi
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$("$python" --version) is too old: Python 3.11 or later is needed; name one with PYTHON=/path/to/python3"
    exit 1
  }
  say "making $venv"
  "$python" -m venv "$venv"
}

# Build tools first: with them in place nothing is fetched that the locks do not name.
install_lock() {
  say "installing $1"
  pip install --quiet --no-build-isolation --require-hashes --requirement "$1"
}

install_project() {
  say "installing hdfs-csi (editable)"
  pip install --quiet --no-build-isolation --no-deps --editable .
}

setup_install() {
  packages need_for_install
  make_venv
  once build requirements-build.lock -- install_lock requirements-build.lock
  once runtime requirements.lock -- install_lock requirements.lock
  once project pyproject.toml -- install_project
}

setup_check() {
  setup_install
  once dev requirements-dev.lock -- install_lock requirements-dev.lock
}

setup_demo() {
  packages need_for_install need_for_demo
  setup_install
  "$venv/bin/python" -m tests.support.hadoop >/dev/null
}

setup_test() {
  packages need_for_install need_for_demo need_for_test
  setup_demo
  setup_check
  "$venv/bin/python" -m tests.support.golang >/dev/null
  "$venv/bin/python" -m tests.support.libhdfs >/dev/null
}

setup_bench() {
  packages need_for_install need_for_demo need_for_test need_for_bench
  setup_test
}

setup_e2e() {
  packages need_for_install need_for_demo need_for_test need_for_e2e
  setup_test
}

case ${1:-} in
  install | check | demo | test | bench | e2e) "setup_$1" ;;
  *)
    say "usage: $0 install|check|demo|test|bench|e2e"
    exit 2
    ;;
esac
