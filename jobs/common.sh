#!/usr/bin/env bash
# What pretrain.sbatch and run_local.sh share: the site's settings, the run directory, how far a run is. Sourced.
set -euo pipefail

say() { printf 'job: %s\n' "$*"; }
die() {
    printf 'job: error: %s\n' "$*" >&2
    exit 1
}

# shellcheck disable=SC2317  # the two functions are called by those who source this
# load_site ROOT SITE: a name in jobs/sites or a path. Sets the variables that sites/workstation.env explains.
load_site() {
    local root=$1 site=$2
    site_file=$site
    [[ -f $site_file ]] || site_file=$root/jobs/sites/$site.env
    [[ -f $site_file ]] || die "no site '$site' (it names modules, launcher and binding); there are: $(site_names "$root"); or give the path of a file"
    program=${SWITCHYARD_PROGRAM:-$root/build/release/switchyard}
    job_options=() launcher=(srun --kill-on-bad-exit=1) ranks_per_node=1 cores_per_rank=1 gpus_per_rank=0
    signal_lead=120 end_margin=30 restart=requeue
    site_environment() { :; }
    prepare_run() { :; }
    # shellcheck source=jobs/sites/workstation.env
    source "$site_file"
    case $restart in
        requeue | chain) ;;
        *) die "$site_file: restart=$restart (how a saved run goes on); use requeue or chain" ;;
    esac
}

# enter_site: the site's modules and variables. Module systems use variables that are not set.
enter_site() {
    set +u
    site_environment
    set -u
}

site_names() {
    local file names=()
    for file in "$1"/jobs/sites/*.env; do names+=("$(basename "$file" .env)"); done
    echo "${names[*]}"
}

# require_program: batch jobs never build.
require_program() {
    [[ -x $program ]] || die "no program $program (a job never builds); build it on a login node: tools/setup.sh"
}

# run_directory CONFIG [--section.key=value ...]: run.dir, the command line before the file.
run_directory() {
    local config=$1 directory argument
    shift
    [[ -f $config ]] || die "no configuration '$config'"
    directory=$(awk '/^[ \t]*\[/ { section = $0; gsub(/[][ \t\r]/, "", section) }
        section == "run" && /^[ \t]*dir[ \t]*=/ {
            sub(/^[^=]*=[ \t]*/, ""); sub(/[ \t]*(#.*)?\r?$/, ""); print; exit }' "$config")
    for argument in "$@"; do
        if [[ $argument == --run.dir=* ]]; then directory=${argument#*=}; fi
    done
    [[ -n $directory ]] || die "run.dir is not set in $config (log and checkpoints go there); set it under [run]"
    echo "$directory"
}

# newest_step RUN: of the newest complete checkpoint, -1 without one.
newest_step() {
    local file step newest=-1
    for file in "$1"/checkpoints/step_*.h5; do
        step=${file##*/step_}
        step=${step%.h5}
        if [[ $step =~ ^[0-9]+$ && $((10#$step)) -gt $newest ]]; then newest=$((10#$step)); fi
    done
    echo "$newest"
}

# outcome RUN: as in status.json, empty without one.
outcome() { sed -n 's/.*"outcome" *: *"\([a-z]*\)".*/\1/p' "$1/status.json" 2>/dev/null | head -n 1; }
