#!/usr/bin/env bash
# Runs a command inside of the cluster's namespaces: inside.sh kubectl get pods
set -euo pipefail
. "$(dirname "$0")/env.sh"
inside "$@"
