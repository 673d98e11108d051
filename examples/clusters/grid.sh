#!/usr/bin/env bash
# Check the nodes of a running Ray cluster, then run a grid on them:
#
#     grid.sh HOST:PORT NODES
#
# Called again, whatever ended the last call, it runs what is missing.
# Edit, or set: what is run, where the data are, where results go. All of it by paths that every node has.
GRID=${GRID:-/shared/my_grid.yaml}
DATA=${DATA:-/shared/datasets}
OUT=${OUT:-/shared/results/my_grid}

set -euo pipefail
pet-bench doctor "$GRID" --data "$DATA" --out "$OUT" --ray-address "$1" --nodes "$2"
pet-bench run "$GRID" --data "$DATA" --out "$OUT" --ray-address "$1"
