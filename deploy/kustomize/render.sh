#!/usr/bin/env bash
# Writes what kustomize starts from, rendered by Helm from the chart with its defaults, so that there is one source of both.
#
#   deploy/kustomize/render.sh            writes it
#   deploy/kustomize/render.sh --check    says what is not as the chart renders it, and fails then
#
# HELM names a helm that is not on the path.
set -euo pipefail
cd "$(dirname "$0")"

# The version of the cluster that Helm takes a chart to be for differs from one helm to another.
readonly kubernetes=1.34.0

render() { # OPTION...
  echo "# Made by deploy/kustomize/render.sh from deploy/helm/hdfs-csi: change that, and run it."
  "${HELM:-helm}" template hdfs-csi ../helm/hdfs-csi --namespace hdfs-csi --kube-version "$kubernetes" "$@" |
    sed -e '/^ *helm.sh\/chart: /d' -e 's/managed-by: Helm$/managed-by: kustomize/'
}

all() { # FOLDER
  mkdir -p "$1/base" "$1/overlays/openshift"
  render >"$1/base/hdfs-csi.yaml"
  render --set openshift.enabled=true --show-only templates/openshift.yaml >"$1/overlays/openshift/constraints.yaml"
}

if [ "${1:-}" = --check ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  all "$scratch"
  for file in base/hdfs-csi.yaml overlays/openshift/constraints.yaml; do diff -u "$file" "$scratch/$file"; done
else
  all .
fi
