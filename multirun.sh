#!/usr/bin/env bash
# A grid as one command: ./multirun.sh <experiment> [overrides]
# Repeating the command skips the runs that are finished.
set -euo pipefail
cd "$(dirname "$0")"
if [[ $# -lt 1 || "$1" == -* ]]; then
  echo "usage: ./multirun.sh <experiment> [field=value ...]"
  echo "experiments:"
  for file in conf/experiment/*.yaml; do
    grep -q 'mode: MULTIRUN' "$file" && echo "  $(basename "$file" .yaml): $(sed -n '2s/^# //p' "$file")"
  done
  exit 2
fi
experiment=$1
shift
python=python
[[ -x .venv/bin/python ]] && python=.venv/bin/python
exec "$python" train.py --multirun "experiment=$experiment" "$@"
