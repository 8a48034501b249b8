#!/usr/bin/env bash
# A grid as one command, then its report: ./multirun.sh <experiment> [overrides]
# Repeating the command skips what is finished, goes on with what was interrupted and repeats what failed.
set -euo pipefail
cd "$(dirname "$0")"
if [[ $# -lt 1 || "$1" == -* ]]; then
  echo "usage: ./multirun.sh <experiment> [field=value ...]"
  echo "several GPUs: hydra/launcher=ray_gpus; a cluster: ray_cluster, slurm; CPU cores: ray_cpus"
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
status=0
"$python" -m smm_lightning train --multirun "experiment=$experiment" "$@" || status=$?
grep -q 'hydra/sweeper: optuna' "conf/experiment/$experiment.yaml" 2>/dev/null && exit "$status"
# 2: the command line was wrong; above 128: a signal asked for the end.
if [[ $status -eq 2 || $status -gt 128 ]]; then exit "$status"; fi
echo
"$python" -m smm_lightning report "$experiment" "$@" || status=$?
"$python" -m smm_lightning status "$experiment" "$@" || status=1
exit "$status"
