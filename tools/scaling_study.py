#!/usr/bin/env python3
"""A scaling study from one file: plans the runs, starts them, collects and shows the results.

tools/scaling_study.py plan    STUDY.cfg                 the points, what each needs, and which cannot run
tools/scaling_study.py submit  STUDY.cfg [--site=SITE]   runs them here one by one, or sends them to Slurm as job arrays
tools/scaling_study.py status  STUDY.cfg                 queued, running, done, failed
tools/scaling_study.py collect STUDY.cfg                 points.csv: one row a point, medians over repetitions
tools/scaling_study.py report  STUDY.cfg                 report.html and pictures

A study is resumable: finished points are never run again. The syntax is that of the program's own configuration with lists
where the study varies; section [study] is explained in docs/scaling.md.
"""
import argparse
import concurrent.futures
import csv
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from python_modules import need

need("numpy")
from html_page import bytes_text  # noqa: E402
from study_files import only_submit, read_json, write_json, write_whole  # noqa: E402
from study_points import AS_ROOT, PROGRAM, ROOT, StudyError, read_study, require_same_settings  # noqa: E402
from study_results import COLUMNS, collect  # noqa: E402

MPI_RUN = 'source "$0/tools/mpirun_flags.sh"; ranks=$1; shift; mpi_run "$ranks" "$@"'


# ---- plan

def arguments_of(point):
    return [f"--{key}={value}" for key, value in point.settings]


def plan_point(point):
    """(plan as JSON, "") or (None, the program's reason to refuse)."""
    command = [PROGRAM, "plan", f"--ranks={point.ranks}", f"--steps={point.length()}", "--json", *arguments_of(point)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **AS_ROOT, "OMP_NUM_THREADS": "1"},
                            check=False)
    if result.returncode == 0:
        return json.loads(result.stdout), ""
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("[rank")]
    return None, (lines[0].split("] ", 1)[1] if lines else result.stderr.strip() or f"exit code {result.returncode}")


def plan_study(study):
    """{point name: (plan or None, reason not to run it)}, written to DIR/plans.json; repetitions share a plan."""
    first = {}
    for point in study.points:
        first.setdefault((point.ranks, point.settings), point)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = dict(zip(first, pool.map(plan_point, first.values())))
    result = {}
    for point in study.points:
        plan, reason = answers[point.ranks, point.settings]
        if plan:
            sent = [sum(step.values()) for step in plan.pop("bytes_by_step", [])][study.drop_steps:]
            if sent:
                plan["counted_bytes"] = sum(sent) / len(sent)  # of the steps that a run's figures are taken from
                plan["drop_steps"] = study.drop_steps
            together = min(point.ranks, study.ranks_per_node or point.ranks)
            needed = plan["largest_memory"]["total"] * together
            if needed > study.node_memory:
                reason = (f"{together} ranks of {bytes_text(plan['largest_memory']['total'])} do not fit into a node of "
                          f"{bytes_text(study.node_memory)}")
        result[point.name] = (plan, reason)
    study.dir.mkdir(parents=True, exist_ok=True)
    kept = {name: {"plan": plan, "reason": reason} for name, (plan, reason) in result.items()}
    write_json(study.dir / "plans.json", kept)
    return result


def command_plan(study, _):
    plans = plan_study(study)
    distinct = [p for p in study.points if p.repetition == 1]
    print(f"{len(study.points)} runs: {len(distinct)} points x {study.repetitions} repetitions ({study.kind} scaling)\n")
    print(f"{'point':44} {'ranks':>5} {'dp x tp':>8} {'memory of a rank':>17} {'sent a step':>12}")
    refused = []
    for point in distinct:
        plan, reason = plans[point.name]
        if reason:
            refused.append((point, reason))
        if plan:
            layout = f"{plan['dp']} x {plan['tp']}"
            print(f"{point.series:44} {point.ranks:>5} {layout:>8} {bytes_text(plan['largest_memory']['total']):>17} "
                  f"{bytes_text(sum(plan['bytes_mean'].values())):>12}{'  refused' if reason else ''}")
        else:
            print(f"{point.series:44} {point.ranks:>5} {'-':>8} {'-':>17} {'-':>12}  refused")
    for reason in dict.fromkeys(reason for _, reason in refused):
        names = [f"{p.series}, {p.ranks} ranks" for p, r in refused if r == reason]
        print(f"\nrefused: {'; '.join(names)}\n  {reason}")
    return 1 if len(refused) == len(distinct) else 0


# ---- submit

def quoted(value):
    """The value in the quotes with which the program reads it back."""
    if re.fullmatch(r"[\w.,:/+-]*", value):
        return value
    for character, code in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        value = value.replace(character, code)
    return f'"{value}"'


def write_config(study, point):
    sections = {}
    for key, value in (*point.settings, ("run.dir", str(point.run(study)))):
        section, name = key.split(".", 1)
        sections.setdefault(section, []).append(f"{name} = {quoted(value)}")
    text = "\n\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items())
    point.folder(study).mkdir(parents=True, exist_ok=True)
    path = point.folder(study) / "config.cfg"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def prepare(study, point):
    """A point always starts from the beginning, because a part of a run does not show its time."""
    shutil.rmtree(point.run(study), ignore_errors=True)
    (point.folder(study) / "failed").unlink(missing_ok=True)
    return write_config(study, point)


def run_here(study, point, lock):
    config = prepare(study, point)
    command = ["bash", "-c", MPI_RUN, ROOT, str(point.ranks), PROGRAM, "train", config]
    with open(point.folder(study) / "output.txt", "w", encoding="utf-8") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
                              pass_fds=(lock,), env={**os.environ, "OMP_NUM_THREADS": str(point.threads)}).returncode
    if point.state(study) == "done":
        return "done"
    (point.folder(study) / "failed").write_text(f"exit code {code}\n", encoding="utf-8")
    lines = (point.folder(study) / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = next((line for line in reversed(lines) if line.startswith("[rank")), lines[-1] if lines else "no output")
    return f"failed (exit code {code}): {reason}"


def read_site(site):
    """The settings of a site, read by jobs/common.sh: its file, ranks per node, options for sbatch. Throws if it is missing."""
    script = 'source "$0/jobs/common.sh"; load_site "$0" "$1"; printf "%s\\0" "$site_file" "$ranks_per_node" "${job_options[@]}"'
    answer = subprocess.run(["bash", "-c", script, ROOT, site], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise StudyError(answer.stderr.strip().removeprefix("job: error: "))
    file, ranks_per_node, *options = answer.stdout.split("\0")[:-1]
    return pathlib.Path(file).resolve(), int(ranks_per_node), options


def slurm_text(path):
    """A path for sbatch, in which % begins a pattern and a backslash would turn all patterns off."""
    if "\\" in str(path):
        raise StudyError(f"study.dir is {path} (sbatch takes no backslash in the name of a log file); choose another name")
    return str(path).replace("%", "%%")


def submit_to_slurm(study, points, site, options):
    """One job array for every number of ranks and threads; its tasks take points off a list."""
    groups = {}
    for point in points:
        groups.setdefault((point.ranks, point.threads), []).append(point)
    submitted = read_submitted(study)
    for (ranks, threads), members in groups.items():
        name = f"{study.dir.name}-{ranks}x{threads}"
        listing = new_listing(study, f"points_{ranks}x{threads}")
        for point in members:
            prepare(study, point)
        listing.write_text("".join(f"{p.folder(study)}\n" for p in members), encoding="utf-8")
        per_node = min(ranks, study.ranks_per_node or ranks)
        # The site's and the user's options first: of repeated ones sbatch takes the last, and the layout is the study's.
        command = ["sbatch", "--parsable", *options, f"--job-name={name}", f"--array=1-{len(members)}", f"--ntasks={ranks}",
                   f"--ntasks-per-node={per_node}", f"--nodes={-(-ranks // per_node)}", f"--cpus-per-task={threads}",
                   f"--time={study.time_limit}", f"--output={slurm_text(study.dir)}/slurm_%A_%a.log",
                   ROOT / "jobs/study.sbatch", listing.resolve(), site]
        answer = subprocess.run(command, capture_output=True, text=True, check=False,
                                env={**os.environ, "SWITCHYARD_ROOT": str(ROOT)})
        if answer.returncode:
            raise StudyError(f"sbatch refused {name}: {answer.stderr.strip()} (points already sent stay queued)")
        job = answer.stdout.strip().split(";")[0]
        submitted.update({p.name: f"{job}_{i}" for i, p in enumerate(members, 1)})
        write_json(study.dir / "submitted.json", submitted)
        print(f"job array {job}: {len(members)} runs of {ranks} ranks x {threads} threads")


def new_listing(study, name):
    """A new file for every array, because queued tasks still take their points from the earlier files."""
    path, number = study.dir / f"{name}.txt", 1
    while path.exists():
        number += 1
        path = study.dir / f"{name}_{number}.txt"
    return path


def read_submitted(study):
    return read_json(study.dir / "submitted.json")


def queue_states(study, submitted):
    """{job_task: state} of the user's jobs. Throws if Slurm does not answer, because running points are then unknown."""
    unsure = (f"{len(submitted)} unfinished points were sent to Slurm and may be at work; nothing was touched. Try again where squeue answers, "
              f"or remove {study.dir / 'submitted.json'} once their jobs have ended")
    if not shutil.which("squeue"):
        raise StudyError(f"there is no squeue here: {unsure}")
    # By user and not by job, because squeue fails for a job that it no longer knows.
    answer = subprocess.run(["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F_%K %T"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise StudyError(f"squeue failed ({answer.stderr.strip() or f'exit code {answer.returncode}'}): {unsure}")
    return dict(line.split() for line in answer.stdout.splitlines() if len(line.split()) == 2)


def states(study):
    """{point: queued, running, done, failed or waiting}."""
    submitted = read_submitted(study)
    unfinished = {p.name: submitted[p.name] for p in study.points if p.name in submitted and p.state(study) != "done"}
    queue = queue_states(study, unfinished) if unfinished else {}
    result = {}
    for point in study.points:
        state, job = point.state(study), queue.get(submitted.get(point.name, ""))
        if state != "done" and job:
            state = "running" if job in ("RUNNING", "COMPLETING") else "queued"
        elif state == "running" and point.name in submitted:
            state = "failed"  # its job is gone
        elif state == "waiting" and point.name in submitted:
            state = "failed"
        result[point] = state
    return result


def command_submit(study, options):
    if options.site:
        options.site, ranks_per_node, job_options = read_site(options.site)
        study.ranks_per_node = study.ranks_per_node or ranks_per_node
        options.sbatch = [*job_options, *options.sbatch]
    with only_submit(study) as lock:
        return submit(study, options, lock)


def submit(study, options, lock):
    require_same_settings(study)
    now = states(study)
    plans = plan_study(study)
    refused = {name: reason for name, (_, reason) in plans.items() if reason}
    for point in study.points:
        if point.repetition == 1 and point.name in refused:
            print(f"left out: {point.series}, {point.ranks} ranks: {refused[point.name]}", file=sys.stderr)
    submitted = read_submitted(study)
    # Under the lock, a point with outcome "running" that was not sent to Slurm was cut off.
    at_work = {p for p, state in now.items() if state in ("queued", "running") and p.name in submitted}
    open_points = [p for p in study.points if p.name not in refused and now[p] != "done" and p not in at_work]
    print(f"{len(study.points)} runs: {sum(s == 'done' for s in now.values())} done, {len(refused)} left out, {len(open_points)} to do"
          + (f", {len(at_work)} queued or running in Slurm" if at_work else ""))
    if options.site:
        submit_to_slurm(study, open_points, options.site, options.sbatch)
        return 0
    if any(p.name in submitted for p in open_points):  # their jobs have ended; they run here from now on
        write_json(study.dir / "submitted.json", {name: job for name, job in submitted.items() if name not in {p.name for p in open_points}})
    failures = 0
    for number, point in enumerate(open_points, 1):
        result = run_here(study, point, lock)
        failures += result != "done"
        print(f"[{number}/{len(open_points)}] {point.name}: {result}", flush=True)
    return 1 if failures else 0


# ---- status, collect, report

def command_status(study, _):
    now = states(study)
    names = ("waiting", "queued", "running", "done", "failed")
    print(f"{'point':44} {'ranks':>5} " + " ".join(f"{name:>8}" for name in names))
    rows = {}
    for point, state in now.items():
        rows.setdefault((point.series, point.ranks), []).append(state)
    for (series, ranks), found in rows.items():
        print(f"{series:44} {ranks:>5} " + " ".join(f"{found.count(name) or '':>8}" for name in names))
    print(f"{'all':44} {'':>5} " + " ".join(f"{list(now.values()).count(name):>8}" for name in names))
    return 0


def command_collect(study, _):
    require_same_settings(study)
    rows = collect(study)
    if not rows:
        raise StudyError(f"no point of {study.path} is finished yet (nothing to collect); see: tools/scaling_study.py status")
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)  # NaN: no plan
    write_whole(study.dir / "points.csv", table.getvalue())
    missing = len({(p.series, p.ranks) for p in study.points}) - len(rows)
    print(f"{len(rows)} points -> {study.dir / 'points.csv'}" + (f" ({missing} have no finished run)" if missing else ""))
    return 0


def command_report(study, _):
    need("matplotlib", "numpy")
    from study_report import write_report  # needs matplotlib; the other commands do not
    command_collect(study, None)
    write_report(study, collect(study))
    print(f"report -> {study.dir / 'report.html'}")
    return 0


COMMANDS = {"plan": command_plan, "submit": command_submit, "status": command_status, "collect": command_collect,
            "report": command_report}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("study", type=pathlib.Path, metavar="STUDY.cfg")
    parser.add_argument("--site", help="submit: to Slurm, with jobs/sites/SITE.env (or a path)")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="submit: one more option for sbatch, repeatable")
    options = parser.parse_args()
    try:
        return COMMANDS[options.command](read_study(options.study), options)
    except StudyError as error:
        print(f"scaling_study: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"scaling_study: {error} (what is finished is kept)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
