#!/bin/sh
# Everything that only a GPU can tell, in under nine minutes; see gpu.py.
#   sh benchmarks/gpu.sh [--out gpu] [--data FOLDER] [--parts tests speed ...] [--again tests]
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" "$@"
