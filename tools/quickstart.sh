#!/usr/bin/env bash
# From an empty clone to a trained model: real text, tokens, training on 2 ranks with an interruption and a restart on
# another layout, evaluation, generated text and a picture. Harmless when repeated; continues where it was cut off.
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/mpirun_flags.sh
source "$(dirname "${BASH_SOURCE[0]}")/mpirun_flags.sh"
# shellcheck source=tools/example_text.sh
source "$(dirname "${BASH_SOURCE[0]}")/example_text.sh"

usage() {
    cat <<'TEXT'
tools/quickstart.sh [--fresh]
  --fresh  delete runs/quickstart and start over
Settings: jobs/configs/quickstart.cfg. Results: runs/quickstart/.
TEXT
}

case ${1:-} in
    "") fresh=0 ;;
    --fresh) fresh=1 ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 1 ;;
esac

cd "$root"
program=build/release/switchyard
config=jobs/configs/quickstart.cfg
work=runs/quickstart
run=$work/switchlora
vocab_size=2048
steps=$(sed -n 's/^steps *= *\([0-9][0-9]*\).*/\1/p' "$config")
training=0

explain() { printf '%s\n' "$@" | sed 's/^/    /'; }
outcome() { sed -n 's/.*"outcome" *: *"\([a-z]*\)".*/\1/p' "$run/status.json" 2>/dev/null | head -n 1; }
newest_checkpoint() { find "$run/checkpoints" -name 'step_*.h5' 2>/dev/null | sort | tail -n 1; }
last_step() { { tail -n 3 "$run/log.jsonl" | grep -o '"step" *: *[0-9]*' | grep -o '[0-9]*' | sort -n | tail -n 1; } 2>/dev/null || true; }

# The background launcher must not outlive this script.
trap '[[ $training -eq 0 ]] || kill "$training" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

make_tokens() {
    say "2/7 Tokens: train a SentencePiece tokenizer with $vocab_size pieces and write a token file"
    if [[ -s $work/tokens.h5 ]]; then
        explain "already there: $work/tokens.h5"
    else
        run_shown 1 tokenize "$work/text.txt" --output="$work/tokens.h5" --vocab_size=$vocab_size
    fi
    explain "The file holds the tokens, the document boundaries and the tokenizer itself; 1 % of the documents are" \
        "kept for validation. Look into it: $program inspect $work/tokens.h5"
}

# run_shown RANKS COMMAND...: shows the command line that a user would type, then runs it.
run_shown() {
    local ranks=$1
    shift
    local shown
    shown=$(printf ' %q' "$program" "$@")
    if [[ $ranks -gt 1 ]]; then
        explain "\$ mpirun -n $ranks$shown"
        mpi_run "$ranks" "$program" "$@"
    else
        explain "\$$shown"
        env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" \
            "$program" "$@"
    fi
}

# Starts training in the background and sends SIGUSR1, as a batch system does before the time limit, half-way.
train_first_half() {
    local half=$((steps / 2)) step status=0
    say "3/7 Training, first part: 2 ranks, data parallel 2"
    explain "SwitchLoRA: the large matrices are frozen, 32 of 128 vector pairs of each are trained at a time, and which" \
        "ones changes all the time. At step $half this script sends SIGUSR1 to mpirun." \
        "\$ mpirun -n 2 $program train $config"
    mpi_prepare 2
    "${mpi_command[@]}" "$program" train "$config" </dev/null &
    training=$!
    while kill -0 "$training" 2>/dev/null; do
        step=$(last_step)
        if [[ ${step:-0} -ge $half ]]; then
            kill -USR1 "$training" 2>/dev/null || true
            break
        fi
        sleep 0.2
    done
    wait "$training" || status=$?
    training=0
    if [[ $status -eq 0 && $(outcome) == requeue ]]; then status=75; fi # MPICH's mpirun may lose the code once it got a signal
    case $status in
        75)
            [[ $(outcome) == requeue ]] || die "exit code 75, but $run/status.json says '$(outcome)' instead of 'requeue'"
            explain "" "Exit code 75 and \"outcome\": \"requeue\" in $run/status.json: saved, please start me again." \
                "(mpirun prints a remark on every exit code but 0; this one is intended.)" \
                "Saved: $(newest_checkpoint)"
            ;;
        0) explain "The run finished before the signal reached it; there is nothing left to resume." ;;
        *) die "training ended with exit code $status (see the message above; after mending it, start this script again)" ;;
    esac
}

train_second_half() {
    say "4/7 Training, second part: the same run as tensor parallel 2"
    explain "The checkpoint does not depend on the layout: the ranks now split every matrix instead of the batch." \
        "The same command resumes, because the run directory has a checkpoint."
    run_shown 2 train "$config" --parallel.tp=2 </dev/null
    [[ $(outcome) == finished ]] || die "$run/status.json says '$(outcome)' instead of 'finished'"
}

evaluate() {
    local checkpoint
    checkpoint=$(newest_checkpoint)
    say "5/7 Evaluation on the validation documents"
    run_shown 1 eval "$checkpoint" | tee "$work/evaluation.txt"
    explain "A model that knows nothing has loss ln $vocab_size = 7.62. Perplexity is e to the loss: the number of" \
        "equally likely pieces among which a choice would be as hard."

    say "6/7 A few lines from the model"
    : >"$work/generated.txt"
    local prompt
    for prompt in "Lighthouse:" "To wander:" "Switchyard:"; do
        run_shown 1 generate "$checkpoint" --prompt="$prompt" | tee -a "$work/generated.txt"
    done
    explain "A model this small, trained for minutes, has the tone of a dictionary and little sense."
}

draw() {
    say "7/7 Picture: loss and throughput over both parts"
    explain "\$ tools/plot_run.py $run -o $work/quickstart.png"
    python3 tools/plot_run.py "$run" -o "$work/quickstart.png"
}

closing() {
    say "What you have and what to type next"
    explain "picture           $work/quickstart.png" \
        "run directory     $run  (config.cfg, log.jsonl, status.json, environment.json, checkpoints/)" \
        "verify it         $program verify $(newest_checkpoint)" \
        "what is in it     $program inspect $(newest_checkpoint)" \
        "your own run      mpirun -n 2 $program train $config --run.dir=runs/mine --optim.lr=0.02" \
        "before launching  $program plan $config --ranks=2" \
        "run the tests     tools/test.sh" \
        "start over        tools/quickstart.sh --fresh" \
        "(As root or with fewer cores than ranks, mpirun needs flags: tools/mpirun_flags.sh knows them.)"
}

if [[ $fresh -eq 1 ]]; then rm -rf "$work"; fi
if [[ $(outcome) == finished && -s $work/quickstart.png && -s $work/generated.txt ]]; then
    say "This quickstart is finished; nothing was done. Its results:"
    cat "$work/evaluation.txt" "$work/generated.txt"
    closing
    exit 0
fi

install_packages
build_preset release --target switchyard
started=$SECONDS
mkdir -p "$work"
say "1/7 Text: the dictionary of Debian's package dict-gcide (Webster 1913 and additions)"
get_text "$work"
make_tokens
if [[ -z $(newest_checkpoint) ]]; then train_first_half; fi
if [[ $(outcome) != finished ]]; then train_second_half; fi
evaluate
draw
explain "After set-up this took $((SECONDS - started)) s."
closing
