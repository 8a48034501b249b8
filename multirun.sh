#!/usr/bin/env bash
# A grid as one command, then its report: ./multirun.sh <experiment> [overrides]
# Repeating the command skips what is finished, goes on with what was interrupted and repeats what failed.
set -euo pipefail
cd "$(dirname "$0")"
if [[ $# -lt 1 || "$1" == -* ]]; then
  echo "usage: ./multirun.sh <experiment> [field=value ...]"
  echo "several GPUs: hydra/launcher=ray_gpus; a cluster: ray_cluster, slurm; CPU cores: ray_cpus"
  echo "experiments:"
  echo "  all_tables: every grid of the paper, with the runs that they share once"
  echo "  table4, table5: counted and timed, without training"
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
if [[ $experiment == table4 || $experiment == table5 ]]; then
  exec "$python" -m smm_lightning benchmark "$experiment" "$@"
fi
if [[ $experiment == all_tables ]]; then
  "$python" -m smm_lightning status all_tables "$@" || { status=$?; [[ $status -eq 1 ]] || exit "$status"; }
  status=0
  grids=$("$python" -c 'from smm_lightning.run.grid import paper_grids; print(*paper_grids())')
  for name in table4 table5 $grids; do
    echo
    echo "$name"
    if [[ $name == table4 || $name == table5 ]]; then ./multirun.sh "$name" || status=$?; continue; fi
    grid=0
    ./multirun.sh "$name" "$@" || grid=$?
    if [[ $grid -eq 2 || $grid -gt 128 ]]; then exit "$grid"; fi
    [[ $grid -eq 0 ]] || status=$grid
  done
  exit "$status"
fi
"$python" -m smm_lightning train --multirun "experiment=$experiment" "$@" || status=$?
grep -q 'hydra/sweeper: optuna' "conf/experiment/$experiment.yaml" 2>/dev/null && exit "$status"
# 2: the command line was wrong; above 128: a signal asked for the end.
if [[ $status -eq 2 || $status -gt 128 ]]; then exit "$status"; fi
echo
"$python" -m smm_lightning report "$experiment" "$@" || status=$?
"$python" -m smm_lightning status "$experiment" "$@" || status=1
exit "$status"
