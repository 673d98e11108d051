#!/usr/bin/env bash
# Ray on machines that are reached by ssh, called on the first of them:
#
#     cluster.sh start && grid.sh HEAD:6379 3
#     cluster.sh stop
#
# Edit, or set: the address of this machine by which the others reach it, the others, where pet-bench is installed.
HEAD=${HEAD:-10.0.0.1}
OTHERS=${OTHERS:-10.0.0.2 10.0.0.3}
ENVIRONMENT=${ENVIRONMENT:-/shared/pet-bench/.venv}

set -euo pipefail
case "${1:-}" in
  start)
    "$ENVIRONMENT/bin/ray" start --head --node-ip-address="$HEAD" --port=6379 --disable-usage-stats
    for host in $OTHERS; do
      ssh "$host" "$ENVIRONMENT/bin/ray" start --address="$HEAD:6379" --node-ip-address="$host" --disable-usage-stats
    done
    ;;
  stop)
    for host in $OTHERS; do
      ssh "$host" "$ENVIRONMENT/bin/ray" stop || echo "$host did not answer" >&2
    done
    "$ENVIRONMENT/bin/ray" stop
    ;;
  *)
    echo "usage: cluster.sh start|stop" >&2
    exit 2
    ;;
esac
