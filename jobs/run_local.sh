#!/usr/bin/env bash
# Runs the configuration of a batch job on this machine: one rank per GPU or NUMA domain under mpirun. It resumes, and
# ends with the program's exit code (75: saved, start it again). Signals to this process reach mpirun.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=jobs/common.sh
source "$root/jobs/common.sh"
# shellcheck source=tools/mpirun_flags.sh
source "$root/tools/mpirun_flags.sh"

usage() {
    cat <<'TEXT'
jobs/run_local.sh CONFIG [SITE] [--ranks=N] [--section.key=value ...]
  SITE     jobs/sites/SITE.env or a path; default workstation
  --ranks  default: one per NUMA domain, or per GPU where the site says gpus_per_rank=1
TEXT
}

# Those that the program may use; slices (MIG) are lines of their own and do not count.
num_gpus() {
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .
    else
        nvidia-smi -L | grep -c '^GPU '
    fi
}

positional=() settings=() ranks=
for argument in "$@"; do
    case $argument in
        --help | -h) usage && exit 0 ;;
        --ranks=*) ranks=${argument#*=} ;;
        --*.*=*) settings+=("$argument") ;;
        -*) usage >&2 && exit 1 ;;
        *) positional+=("$argument") ;;
    esac
done
[[ ${#positional[@]} -ge 1 && ${#positional[@]} -le 2 ]] || { usage >&2 && exit 1; }
load_site "$root" "${positional[1]:-workstation}"
enter_site
require_program
run=$(run_directory "${positional[0]}" "${settings[@]}")
if [[ -z $ranks && $gpus_per_rank -gt 0 ]]; then
    ranks=$(num_gpus)
elif [[ -z $ranks ]]; then
    ranks=$(lscpu --parse=NODE | grep -v '^#' | sort -u | wc -l)
fi
[[ $ranks =~ ^[1-9][0-9]*$ ]] || die "--ranks=$ranks is not a number of ranks (mpirun starts that many processes); give a whole number"
mpi_prepare "$ranks"
step=$(newest_step "$run")
say "$ranks ranks, run $run from $([[ $step -ge 0 ]] && echo "step $step" || echo "the beginning")"
for signal in USR1 TERM HUP; do
    # shellcheck disable=SC2064  # the present value of signal
    trap "pass_on $signal" "$signal"
done
# Ctrl-C reaches mpirun by itself; a second SIGINT would be an order to kill.
trap 'if [[ -t 0 ]]; then interrupted=1; else pass_on INT; fi' INT
test_machine "${mpi_command[@]}" "$program" selftest "${positional[0]}" "${settings[@]}" --run.dir="$run"
launch "${mpi_command[@]}" "$program" train "${positional[0]}" "${settings[@]}" --run.dir="$run"
# MPICH's mpirun may end with 0 once a signal went through it, whatever its ranks ended with.
if [[ $code -eq 0 && $(outcome "$run") == requeue ]]; then code=75; fi
say_killed "$run"
exit "$code"
