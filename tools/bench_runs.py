"""What the benchmark scripts share: programs that must succeed, and text for them."""
import os
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
MPI_RUN = 'source "$1/tools/mpirun_flags.sh"; ranks=$2; shift 2; mpi_run "$ranks" "$@"'


class Failure(Exception):
    pass


def run(command, what, **environment):
    """Standard output of `command`. If it fails, the message has its last lines."""
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **environment})
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise Failure(f"{what} failed with exit code {result.returncode}:\n  {' '.join(map(str, command))}\n{tail}")
    return result.stdout


def on_ranks(ranks, command):
    return ["bash", "-c", MPI_RUN, "bash", ROOT, ranks, *command]


def make_tokens(program, folder, sentences):
    """A token file of made-up words, with a vocabulary of 512."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(3000)]
    text, tokens = folder / "text.txt", folder / "tokens.h5"
    with open(text, "w") as file:
        for i in range(sentences):
            file.write(" ".join(draw.choices(words, k=10)) + (".\n\n" if i % 50 == 49 else ".\n"))
    run([program, "tokenize", text, f"--output={tokens}", "--vocab_size=512", "--quiet"], "switchyard tokenize")
    return tokens
