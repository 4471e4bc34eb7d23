#!/usr/bin/env bash
# What pretrain.sbatch and run_local.sh share: the site's settings, the run directory, the progress of a run. Sourced.
set -euo pipefail

say() { printf 'job: %s\n' "$*"; }
die() {
    printf 'job: error: %s\n' "$*" >&2
    exit 1
}

# shellcheck disable=SC2317  # the two functions are called by those who source this
# load_site ROOT SITE: SITE is a name in jobs/sites or a path. Sets the variables that sites/workstation.env explains.
load_site() {
    local root=$1 site=$2
    site_file=$site
    [[ -f $site_file ]] || site_file=$root/jobs/sites/$site.env
    [[ -f $site_file ]] || die "no site '$site' (it names modules, launcher and binding); use one of $(site_names "$root"), or give the path of a file"
    program=${SWITCHYARD_PROGRAM:-}
    job_options=() launcher=(srun --kill-on-bad-exit=1) ranks_per_node=1 cores_per_rank=1 gpus_per_rank=0
    signal_lead=120 end_margin=30 restart=requeue selftest=0
    site_environment() { :; }
    prepare_run() { :; }
    # shellcheck source=jobs/sites/workstation.env
    source "$site_file"
    preset=release
    if [[ $gpus_per_rank -gt 0 ]]; then preset=cuda; fi
    program=${program:-$root/build/$preset/switchyard}
    case $restart in
        requeue | chain) ;;
        *) die "$site_file: restart=$restart (how a saved run goes on); use requeue or chain" ;;
    esac
    case $selftest in
        0 | 1) ;;
        *) die "$site_file: selftest=$selftest (whether the machine is tested before each start); use 0 or 1" ;;
    esac
}

# enter_site: loads the site's modules and variables. Module systems use variables that are not set.
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

# require_program: fails without a program, because batch jobs never build.
require_program() {
    [[ -x $program ]] || die "no program $program (a job never builds); build it on a login node: tools/setup.sh $preset"
}

# run_directory CONFIG [--section.key=value ...]: prints run.dir as the program reads it; scripts never parse
# configurations.
run_directory() {
    local directory
    [[ -e $1 ]] || die "no configuration '$1' (it says what is trained); check the path"
    require_program
    # Modules may print. The site's variables stay in this subshell.
    directory=$(enter_site >&2 && exec "$program" get run.dir "$@") ||
        die "$program did not tell run.dir of $1 (its message stands above); correct the configuration, or build the program where it runs"
    [[ -n $directory ]] || die "run.dir is empty in $1 (log and checkpoints go there); set it under [run]"
    if [[ $directory == -* ]]; then directory=./$directory; fi # so that other commands do not take it for an option
    printf '%s\n' "$directory"
}

# newest_step RUN: prints the step of the newest complete checkpoint, -1 without one.
newest_step() {
    local file step newest=-1
    for file in "$1"/checkpoints/step_*.h5; do
        step=${file##*/step_}
        step=${step%.h5}
        if [[ $step =~ ^[0-9]+$ && $((10#$step)) -gt $newest ]]; then newest=$((10#$step)); fi
    done
    echo "$newest"
}

# launch COMMAND...: runs it to its end and sets code. A trap that calls `pass_on SIGNAL` passes the signal on to it.
launcher_pid=0 interrupted=0 early_signal=0 code=0
pass_on() {
    interrupted=1
    if [[ $launcher_pid -ne 0 ]]; then kill -"$1" "$launcher_pid" 2>/dev/null || true; else early_signal=1; fi
}
launch() {
    [[ $early_signal -eq 0 ]] || die "a signal came before the program was started (it was to end, so nothing was trained); start it again"
    # Between fork and exec SIGUSR1 would end the child; mpirun installs its own handler later.
    (trap '' USR1 && exec "$@") <&0 &
    launcher_pid=$!
    while :; do
        interrupted=0 code=0
        wait "$launcher_pid" || code=$?
        [[ $interrupted -eq 1 ]] || break
    done
    launcher_pid=0
}

# test_machine COMMAND...: where the site says selftest=1, runs COMMAND, which is the program's self-test with launcher and
# ranks, to its end. Fails if it fails, so that nothing is trained on a machine that computes or writes wrongly.
test_machine() {
    [[ $selftest -eq 1 ]] || return 0
    say "self-test: $(printf '%q ' "$@")"
    launch "$@"
    [[ $code -eq 0 ]] ||
        die "the self-test ended with exit code $code (its lines with FAILED stand above, unless it was ended from outside); do what they say, or set selftest=0 in $site_file to train all the same"
}

# say_killed RUN: ranks that were killed could not write how the run ended, so status.json still has `running`. Call
# it after launch.
say_killed() {
    local run=$1 step time reason
    [[ $(outcome "$run") == running ]] || return 0
    # This job may have been refused because another process trains there: then that process holds the lock, or the lock
    # names another job.
    if [[ -n ${SLURM_JOB_ID:-} ]] && ! grep -q "(Slurm job $SLURM_JOB_ID)" "$run/lock" 2>/dev/null; then return 0; fi
    flock --nonblock "$run/lock" true 2>/dev/null || return 0
    step=$(sed -n 's/.*"step" *: *\(-\{0,1\}[0-9]*\).*/\1/p' "$run/status.json" | head -n 1) time=$(date -u +%FT%TZ)
    reason="the ranks ended with exit code $code and without a word: one was killed, by hand or because the memory was full"
    printf '{\n  "outcome": "failed",\n  "reason": "%s",\n  "step": %s,\n  "time": "%s"\n}\n' "$reason" "${step:-0}" "$time" \
        >"$run/status.json.job.partial" && mv -f "$run/status.json.job.partial" "$run/status.json"
    say "$reason; the newest checkpoint is of step $(newest_step "$run"), and the same command goes on from there"
}

# outcome RUN: prints the outcome in status.json; nothing without one.
outcome() { sed -n 's/.*"outcome" *: *"\([a-z]*\)".*/\1/p' "$1/status.json" 2>/dev/null | head -n 1; }
