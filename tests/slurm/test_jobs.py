#!/usr/bin/python3
"""jobs/pretrain.sbatch on a real Slurm of one node: ends, limits, requeue, chain, cancel, drain, crash, arrays, salloc.

test_jobs.py --build=DIR [--keep] [CASE ...]. Exits 77 with the reason where Slurm cannot run. Cases run side by side.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import tiny_run
from cluster import CannotRun, Cluster, under_guard
from tiny_run import ROOT, STEPS, Run

# Slurm's limits are whole minutes and looked at every 30 s: the signal comes 0 to 60 s earlier than asked for.
LIMIT_MIN = int(os.environ.get("SWITCHYARD_SLURM_LIMIT_MIN", "2"))
LEAD_S = int(os.environ.get("SWITCHYARD_SLURM_LEAD_S", "60"))
HOLD_S = int(os.environ.get("SWITCHYARD_SLURM_HOLD_S", "5"))  # how long a requeued job waits
KILL_WAIT_S = int(os.environ.get("SWITCHYARD_SLURM_KILL_WAIT_S", "10"))
WAIT_S = float(os.environ.get("SWITCHYARD_SLURM_WAIT_S", "240"))  # the longest wait for anything

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
PAUSE_STEP = 23  # beyond the checkpoint of step 20; a run waits here for a signal if a case asks for it
LAUNCHERS = {
    "srun": "launcher=(srun --mpi=pmix --kill-on-bad-exit=1)",
    "mpirun": "launcher=(mpirun --oversubscribe --bind-to none)",
    "true": "launcher=(true)",
}


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def wait_for(condition, what, limit_s=WAIT_S):
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < end, f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.4)


class Jobs:
    """What the cases share: the cluster, the configuration, functions that submit and observe jobs."""

    def __init__(self, cluster, program, folder):
        self.cluster, self.program, self.folder = cluster, program, folder
        self.config = tiny_run.make(program, folder)
        self.reference_done = concurrent.futures.Future()

    def site(self, name, launcher, restart="requeue"):
        path = self.folder / f"{name}.env"
        path.write_text(f"# shellcheck shell=bash\nprogram={self.program}\n{LAUNCHERS[launcher]}\nranks_per_node=2\n"
                        f"cores_per_rank=1\nsignal_lead={LEAD_S}\nrestart={restart}\n"
                        f"selftest={int(name.startswith('finish_srun'))}\n")
        return path

    def run(self, name):
        return Run(self.program, self.folder / "runs" / name)

    def submit(self, name, launcher, *settings, restart="requeue", pause=False, fault=None, minutes=10):
        """Returns the job's number. pause: the ranks wait at PAUSE_STEP until a signal comes. fault: another one. minutes:
        None gives no option of sbatch, so that the partition's limit holds."""
        environment = {**self.cluster.environment, **tiny_run.MPI_ENVIRONMENT}
        environment.pop("SWITCHYARD_TEST_FAULT", None)
        if pause or fault:
            environment["SWITCHYARD_TEST_FAULT"] = fault or f"-1:{PAUSE_STEP}:wait"
        result = self.call("bash", str(ROOT / "jobs/pretrain.sbatch"), str(self.config),
                           str(self.site(f"{name}_{launcher}", launcher, restart)), *([f"--time={minutes}"] if minutes else []),
                           f"--run.dir={self.run(name).path}", *settings, env=environment)
        return self.number(result)

    def call(self, *command, env=None):
        return subprocess.run(command, capture_output=True, text=True, env=env or self.cluster.environment, cwd=ROOT)

    @staticmethod
    def number(result):
        expect(result.returncode == 0, f"submitting failed: {result.stdout}{result.stderr}")
        return re.findall(r"Submitted batch job (\d+)", result.stdout)[-1]

    def show(self, job):
        return dict(re.findall(r"([\w/]+)=(\S*)", self.call("scontrol", "show", "job", "--oneliner", job).stdout))

    def state(self, job):
        return self.show(job).get("JobState", "")

    def wait_end(self, job, restarts=0):
        """Waits for the end after this number of restarts; returns Slurm's description of the job."""
        def ended():
            shown = self.show(job)
            return shown if shown.get("JobState") in ENDED and int(shown["Restarts"]) >= restarts else None
        return wait_for(ended, f"the end of job {job} after {restarts} restarts")

    def wait_pause(self, name, step=PAUSE_STEP):
        wait_for(lambda: self.run(name).last_step() >= step, f"{name} at step {step}")

    def log(self, name, job):
        path = self.run(name).path / "jobs" / f"{job}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def array_log(self, array, task):
        path = self.folder / "runs" / f"array_{array}_{task}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self, name):
        """The last lines of the logs of all jobs of a run, for people."""
        paths = [*self.run(name).path.glob("jobs/*.log"), *self.run(name).path.glob("*.log")]
        return "".join(f"\n---- {p.name}\n" + "".join(p.read_text(errors="replace").splitlines(True)[-25:]) for p in paths)

    def expect_reference(self, name):
        """The run must have finished, bit for bit like the uninterrupted one."""
        run = self.run(name)
        expect(run.status().get("outcome") == "finished", f"status {run.status()}")
        expect(run.last_step() == STEPS, f"last step {run.last_step()}")
        reference = self.reference_done.result(timeout=WAIT_S)
        difference = run.diff(reference)
        expect(difference.returncode == 0, f"differs from the uninterrupted run:\n{difference.stdout}{difference.stderr}")

    def expect_good_checkpoint(self, name, step):
        run = self.run(name)
        expect(run.checkpoints(), "no checkpoint")
        verified = run.verify_newest()
        expect(verified.returncode == 0, f"{verified.stdout}{verified.stderr}")
        newest = int(re.findall(r"\d+", run.checkpoints()[-1].name)[0])
        expect(newest >= step, f"newest checkpoint of step {newest} instead of {step} or later")


def finish_srun(jobs):
    """A run that finishes, submitted by the script itself. All others are compared with it."""
    try:
        job = jobs.submit("finish_srun", "srun")
        shown = jobs.wait_end(job)
        run = jobs.run("finish_srun")
        expect(shown["JobState"] == "COMPLETED" and run.status().get("outcome") == "finished", f"{shown} {run.status()}")
        jobs.reference_done.set_result(run)
    except BaseException as problem:
        jobs.reference_done.set_exception(AssertionError(f"there is nothing to compare with: {type(problem).__name__} in finish_srun"))
        raise
    record = run.path / "jobs" / f"{job}.0"
    for name in ("site.env", "job.txt", "environment.json", "config.cfg", "selftest.json"):
        expect((record / name).stat().st_size > 0, f"{name} is not recorded")
    tested = json.loads((record / "selftest.json").read_text())
    expect(tested["machine"]["num_ranks"] == 2 and tested["verdict"] != "failed", f"the site's self-test: {tested}")
    expect("revision" in (record / "environment.json").read_text(), "no code version recorded")
    config = (run.path / "config.cfg").read_text()
    limit = float(re.search(r"wall_limit = ([\d.]+)", config).group(1))
    expect(0 < limit < 600, f"the job's time limit was not passed on: wall_limit = {limit}")
    expect(f"SIGUSR1 comes {LEAD_S} s before the job ends" in jobs.log("finish_srun", job), "lead time is not judged")
    expect("took up to" in jobs.log("finish_srun", job), "lead time is not compared with a measured save")


def finish_mpirun(jobs):
    """Plain sbatch with CONFIG and SITE as variables."""
    run = jobs.run("finish_mpirun")
    run.path.mkdir(parents=True)
    config = jobs.folder / "mpirun.cfg"
    config.write_text(jobs.config.read_text().replace("/unnamed ", "/runs/finish_mpirun "))
    environment = {**jobs.cluster.environment, **tiny_run.MPI_ENVIRONMENT, "CONFIG": str(config),
                   "SITE": str(jobs.site("finish_mpirun", "mpirun"))}
    job = jobs.number(jobs.call("sbatch", "--ntasks=2", "--time=10", f"--output={run.path}/%j.log",
                                "jobs/pretrain.sbatch", env=environment))
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "COMPLETED" and shown["Restarts"] == "0", f"{shown}")
    expect("SIGUSR1 comes 120 s" in (run.path / f"{job}.log").read_text(), "not the lead time of the #SBATCH line")
    jobs.expect_reference("finish_mpirun")


def limit(jobs, launcher):
    """The job is signalled before the time limit, saves, requeues itself and finishes."""
    name = f"limit_{launcher}"
    job = jobs.submit(name, launcher, pause=True, minutes=LIMIT_MIN)
    shown = jobs.wait_end(job, restarts=1)
    log = jobs.log(name, job)
    expect(shown["JobState"] == "COMPLETED" and shown["Restarts"] == "1", f"{shown}\n{log}")
    run = jobs.run(name)
    expect([e["reason"] for e in run.events("signal")] == ["SIGUSR1"], f"{run.events('signal')}\n{log}")
    expect([e["step"] for e in run.events("resume")] == [PAUSE_STEP + 1], f"{run.events('resume')}")
    expect("restart 0," in log and "restart 1," in log, f"the log of the first start is gone:\n{log}")
    expect(len((run.path / "jobs" / "starts").read_text().splitlines()) == 2, "not two starts")
    jobs.expect_reference(name)


def cancel(jobs, launcher):
    """scancel: the job is not requeued, and the last checkpoint is good. Before that, a second job uses the same directory."""
    name = f"cancel_{launcher}"
    job = jobs.submit(name, launcher, pause=True)
    jobs.wait_pause(name)
    second = jobs.submit(name, launcher)
    shown = jobs.wait_end(second)
    expect(shown["JobState"] == "FAILED" and "in use by pid" in jobs.log(name, second) and
           f"(Slurm job {job})" in jobs.log(name, second), f"{shown}\n{jobs.log(name, second)}")
    expect(jobs.state(job) == "RUNNING", "the first job did not survive the second")
    jobs.call("scancel", job)
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "CANCELLED" and shown["Restarts"] == "0", f"{shown}")
    queue = jobs.call("squeue", "--noheader", f"--name={name}", "--format=%i %T").stdout
    expect("PENDING" not in queue and "RUNNING" not in queue, f"still queued: {queue}")
    jobs.expect_good_checkpoint(name, 20)


def drain(jobs):
    """The node is drained: the job saves on request and requeues itself; it goes on when the node is back."""
    job = jobs.submit("drain", "srun", "--signal=USR1@45", pause=True)
    jobs.wait_pause("drain")
    node = f"NodeName={jobs.cluster.node}"
    jobs.call("scontrol", "update", node, "State=DRAIN", "Reason=test")
    try:
        expect("DRAIN" in jobs.call("scontrol", "show", "node").stdout, "the node is not drained")
        expect(jobs.state(job) == "RUNNING", "draining ended the job")
        jobs.call("scancel", "--signal=USR1", job)
        wait_for(lambda: held_by_the_node(jobs.show(job)), f"job {job} waiting for the node")
        expect(jobs.run("drain").status().get("outcome") == "requeue", f"{jobs.run('drain').status()}")
    finally:
        jobs.call("scontrol", "update", node, "State=RESUME")
    shown = jobs.wait_end(job, restarts=1)
    expect(shown["JobState"] == "COMPLETED", f"{shown}\n{jobs.log('drain', job)}")
    expect("SIGUSR1 comes 45 s" in jobs.log("drain", job), "not the lead time asked for")
    jobs.expect_reference("drain")


def held_by_the_node(shown):
    """True for a job that waits for the node. With a single node, a job behind other waiting jobs shows Priority."""
    return shown["JobState"] == "PENDING" and shown["Restarts"] == "1" and shown["Reason"] not in ("None", "BeginTime")


def killed_rank(jobs, launcher):
    """A rank dies of SIGKILL: the job fails and is not requeued, the next one resumes."""
    name = f"killed_{launcher}"
    job = jobs.submit(name, launcher, pause=True)
    jobs.wait_pause(name)
    os.kill(rank_process(jobs.run(name).path, 1), signal.SIGKILL)
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "FAILED" and shown["Restarts"] == "0", f"{shown}\n{jobs.log(name, job)}")
    status = jobs.run(name).status()
    expect(status["outcome"] == "failed" and "without a word" in status["reason"], f"{status}")
    following = jobs.submit(name, launcher)
    shown = jobs.wait_end(following)
    expect(shown["JobState"] == "COMPLETED", f"{shown}\n{jobs.log(name, following)}")
    expect([e["step"] for e in jobs.run(name).events("resume")] == [20], f"{jobs.run(name).events('resume')}")
    jobs.expect_reference(name)


def rank_process(run, rank):
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = words[0].endswith(b"switchyard") and f"--run.dir={run}".encode() in words
        if ours and f"PMIX_RANK={rank}".encode() in variables:
            return int(entry.name)
    raise AssertionError(f"no process of rank {rank} in {run}")


def successor_in(log):
    """The number of the job that the script submitted as its successor."""
    found = re.findall(r"goes on: Submitted batch job (\d+)", log)
    expect(len(found) == 1, log)
    return found[0]


def chain(jobs):
    """Requeueing is not allowed: a successor waits for the end of the job, resumes and ends the chain. The job was
    submitted without an option of its own."""
    job = jobs.submit("chain", "srun", pause=True, restart="chain", minutes=None)
    jobs.wait_pause("chain")
    jobs.call("scancel", "--signal=USR1", job)
    shown = jobs.wait_end(job)
    log = jobs.log("chain", job)
    expect(shown["JobState"] == "COMPLETED" and shown["Restarts"] == "0", f"{shown}\n{log}")
    successor = successor_in(log)
    shown = jobs.wait_end(successor)
    log = jobs.log("chain", successor)
    expect(shown["JobState"] == "COMPLETED" and "link 1," in log, f"{shown}\n{log}")
    expect("Submitted" not in log, f"the chain did not end:\n{log}")
    jobs.expect_reference("chain")


def chain_of_plain_sbatch(jobs):
    """The script did not submit itself: its successor gets this job's options, not those of the site."""
    name, site = "plain", jobs.site("plain", "mpirun", "chain")
    site.write_text(site.read_text().replace("ranks_per_node=2", "ranks_per_node=1"))
    run = jobs.run(name)
    run.path.mkdir(parents=True)
    environment = {**jobs.cluster.environment, **tiny_run.MPI_ENVIRONMENT, "OMP_NUM_THREADS": "1",
                   "SWITCHYARD_TEST_FAULT": f"-1:{PAUSE_STEP}:wait"}
    asked = ["--ntasks=2", "--cpus-per-task=3", "--mem=100", "--gres=token:2", "--constraint=small", "--time=9"]
    job = jobs.number(jobs.call("sbatch", *asked, "--signal=B:USR1@20", f"--output={run.path}/%j.log",
                                "jobs/pretrain.sbatch", str(jobs.config), str(site), f"--run.dir={run.path}", env=environment))
    jobs.wait_pause(name)
    jobs.call("scancel", "--batch", "--signal=USR1", job)
    first = jobs.wait_end(job)
    log = (run.path / f"{job}.log").read_text()
    successor = successor_in(log)
    second = jobs.wait_end(successor)
    expect(second["JobState"] == "COMPLETED", f"{second}\n{jobs.log(name, successor)}")
    for key in ("NumNodes", "NumTasks", "CPUs/Task", "MinMemoryNode", "TresPerNode", "Features", "TimeLimit",
                "Partition"):
        expect(key in first and first[key] == second.get(key), f"{key}: {first.get(key)}, then {second.get(key)}")
    expect(first["Features"] == "small" and "token:2" in first["TresPerNode"], f"{first}")
    jobs.expect_reference(name)


def no_requeue(jobs):
    """Submitted with --no-requeue: `scontrol requeue` is refused, the script chains by itself."""
    job = jobs.submit("no_requeue", "mpirun", "--no-requeue", pause=True)
    jobs.wait_pause("no_requeue")
    jobs.call("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_end(job)
    log = jobs.log("no_requeue", job)
    expect("scontrol requeue:" in log, log)
    shown = jobs.wait_end(successor_in(log))
    expect(shown["JobState"] == "COMPLETED" and shown["Requeue"] == "0", f"{shown}")
    jobs.expect_reference("no_requeue")


def endless(jobs):
    """The job hangs and is restarted, as after a node failure, before any save: the second start refuses to go on."""
    job = jobs.submit("endless", "srun", fault="-1:5:hang")
    jobs.wait_pause("endless", 5)
    jobs.call("scontrol", "requeue", job)
    shown = jobs.wait_end(job, restarts=1)
    log = jobs.log("endless", job)
    expect(shown["JobState"] == "FAILED" and shown["Restarts"] == "1", f"{shown}\n{log}")
    expect("no step was saved since the last start" in log, log)


def silent(jobs):
    """The launcher starts nothing and reports success, as srun can: the job fails, whatever outcome an earlier start left."""
    run = jobs.run("silent")
    run.path.mkdir(parents=True)
    (run.path / "status.json").write_text('{"outcome": "finished"}')
    os.utime(run.path / "status.json", (time.time() - 100,) * 2)
    job = jobs.submit("silent", "true")
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "FAILED", f"{shown}")


def touch(jobs):
    """touch RUN/save saves and goes on, touch RUN/stop saves and ends without requeueing."""
    job = jobs.submit("touch", "srun", "--run.steps=1000000", "--run.save_interval=0")
    run = jobs.run("touch")
    wait_for(lambda: run.last_step() > 0, "first step")
    (run.path / "save").touch()
    saved = wait_for(lambda: run.events("save"), "a save")[0]["step"]
    expect(not (run.path / "save").exists(), "the file `save` is still there")
    wait_for(lambda: run.last_step() > saved, "steps after the save")
    (run.path / "stop").touch()
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "COMPLETED" and shown["Restarts"] == "0", f"{shown}")
    expect(run.status().get("outcome") == "stopped" and run.status().get("reason") == "stop file", f"{run.status()}")
    jobs.expect_good_checkpoint("touch", saved + 1)


def test_finding_09_array_tasks_requeue_themselves_only(jobs):
    """Tasks are requeued one after the other, including the one whose job number is that of the whole array."""
    array = jobs.submit("array{task}", "srun", "--array=1-2", pause=True)
    tasks = {task: f"{array}_{task}" for task in (1, 2)}
    for task in tasks:
        jobs.wait_pause(f"array{task}")
    for first, second in ((2, 1), (1, 2)):
        other = jobs.show(tasks[second])
        jobs.call("scancel", "--signal=USR1", tasks[first])
        shown = jobs.wait_end(tasks[first], restarts=1)
        expect(shown["JobState"] == "COMPLETED" and shown["Restarts"] == "1", f"{shown}\n{jobs.array_log(array, first)}")
        now = jobs.show(tasks[second])
        expect(all(now[key] == other[key] for key in ("JobState", "Restarts", "StartTime")), f"{other}\nthen {now}")
        expect("restart 1," in jobs.array_log(array, first), jobs.array_log(array, first))
    for task in tasks:
        jobs.expect_reference(f"array{task}")
        record = jobs.run(f"array{task}").path / "jobs" / f"{tasks[task]}.1" / "job.txt"
        expect(len(re.findall("^JobId=", record.read_text(), re.M)) == 1, record.read_text())


def test_finding_09_a_chained_task_has_one_successor(jobs):
    array = jobs.submit("links{task}", "srun", "--array=3", pause=True, restart="chain")
    jobs.wait_pause("links3")
    jobs.call("scancel", "--signal=USR1", f"{array}_3")
    jobs.wait_end(f"{array}_3")
    successor = successor_in(jobs.array_log(array, 3))
    shown = jobs.wait_end(successor)
    expect(shown["JobState"] == "COMPLETED" and "ArrayJobId" not in shown, f"{shown}\n{jobs.log('links3', successor)}")
    jobs.expect_reference("links3")


def test_finding_09_tasks_do_not_share_a_run(jobs):
    refused = jobs.call("bash", "jobs/pretrain.sbatch", str(jobs.config), str(jobs.site("shared", "srun")), "--array=1-2",
                        f"--run.dir={jobs.run('shared').path}")
    expect(refused.returncode == 1 and "all tasks of the array would train in" in refused.stderr and "put {task} into" in refused.stderr, f"{refused}")


def in_salloc(jobs, name, *words, fault=None):
    """pretrain.sbatch in a session of salloc; returns the process."""
    variables = {**jobs.cluster.environment, **tiny_run.MPI_ENVIRONMENT}
    if fault:
        variables["SWITCHYARD_TEST_FAULT"] = fault
    command = ["salloc", "--ntasks=2", "--time=9", f"--job-name={name}", "bash", "jobs/pretrain.sbatch", *words[:1], str(jobs.config),
               str(jobs.site(name, "srun")), f"--run.dir={jobs.run(name).path}", *words[1:]]
    return subprocess.Popen([word for word in command if word], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=ROOT)


def test_finding_10_inside_salloc_it_submits(jobs):
    session = in_salloc(jobs, "from_salloc", "", "--time=7", "--ntasks-per-node=1")
    output = session.communicate(timeout=WAIT_S)[0]
    expect(session.returncode == 0, output)
    own, job = re.search(r"Granted job allocation (\d+)", output)[1], re.search(r"Submitted batch job (\d+)", output)[1]
    expect(own != job, output)
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "COMPLETED" and shown["TimeLimit"] == "00:07:00" and shown["NumTasks"] == "1", f"{shown}")
    expect(", 1 ranks of" in jobs.log("from_salloc", job), "the session's number of ranks was handed on:\n" + jobs.log("from_salloc", job))
    expect(jobs.show(own)["Restarts"] == "0" and jobs.run("from_salloc").status()["outcome"] == "finished", f"{jobs.show(own)}")


def test_finding_10_here_trains_in_the_session(jobs):
    session = in_salloc(jobs, "here", "--here", fault=f"-1:{PAUSE_STEP}:wait")
    jobs.wait_pause("here")
    own = jobs.call("squeue", "--noheader", "--name=here", "--format=%i").stdout.strip()
    jobs.call("scancel", "--signal=USR1", own)
    output = session.communicate(timeout=WAIT_S)[0]
    expect(session.returncode == 75 and "the same command goes on from there" in output and "Submitted" not in output, output)
    shown = jobs.wait_end(own)
    expect(shown["Restarts"] == "0", f"the session was requeued: {shown}")
    again = in_salloc(jobs, "here", "--here")
    output = again.communicate(timeout=WAIT_S)[0]
    expect(again.returncode == 0, output)
    jobs.expect_reference("here")
    for words, part in ((("--here", "--time=3"), "--time=3 with --here"),):
        refused = in_salloc(jobs, "here", *words)
        output = refused.communicate(timeout=WAIT_S)[0]
        expect(refused.returncode == 1 and part in output, output)
    outside = jobs.call("bash", "jobs/pretrain.sbatch", "--here", str(jobs.config), str(jobs.site("here", "srun")))
    expect(outside.returncode == 1 and "--here outside of an allocation" in outside.stderr, f"{outside}")


def odd_run(jobs, name, written):
    """A run named by its configuration only: script, program and Slurm use the same directory."""
    config = jobs.folder / f"odd {name}.cfg"
    line = f"dir = {jobs.folder}/unnamed "
    text = jobs.config.read_text()
    expect(line in text, text)
    config.write_text(text.replace(line, f"dir = first\ndir = {written} "))
    result = jobs.call("bash", "jobs/pretrain.sbatch", str(config), str(jobs.site(f"odd_{len(name)}", "srun")), "--time=9", "--run.stop_step=20",
                       env={**jobs.cluster.environment, **tiny_run.MPI_ENVIRONMENT})
    job = jobs.number(result)
    shown = jobs.wait_end(job)
    expect(shown["JobState"] == "COMPLETED", f"{shown}\n{jobs.log(name, job)}")
    expect(jobs.run(name).last_step() == 20 and f"job {job}," in jobs.log(name, job), f"{name}: {jobs.run(name).status()}")


def test_finding_06_one_reader_of_the_configuration(jobs):
    odd_run(jobs, "exp#1 of two", f'"{jobs.folder}/runs/exp#1 of two"')
    expect(not (jobs.folder / "runs" / "exp").exists(), "cut at #")


def test_finding_24_percent_signs_are_not_expanded(jobs):
    odd_run(jobs, "50%_of_%j_%n_%x", f"{jobs.folder}/runs/50%_of_%j_%n_%x")


STUDY = """
[study]
ranks = 1, 2
repetitions = 1
drop_steps = 1
dir = {folder}/study
[model]
preset = nano
num_layers = 1
[method]
name = full, lora
[method.lora]
rank = 8
[data]
tokens = {folder}/tokens.h5
seq_len = 32
micro_batch = 2
global_batch = 4
[run]
steps = 1000
stop_step = 4
dtype = f32
"""


def study(jobs):
    """tools/scaling_study.py submits its points as job arrays; all are done, and submitting again does nothing."""
    path = jobs.folder / "study.cfg"
    path.write_text(STUDY.format(folder=jobs.folder))
    environment = {**jobs.cluster.environment, **tiny_run.MPI_ENVIRONMENT, "SWITCHYARD_PROGRAM": str(jobs.program)}
    tool = lambda *words: jobs.call("/usr/bin/python3", "tools/scaling_study.py", *words, env=environment)
    submit = ("submit", str(path), f"--site={jobs.site('study', 'srun')}")
    first = tool(*submit)
    expect(first.returncode == 0 and first.stdout.count("job array") == 2, first.stdout + first.stderr)

    wait_for(lambda: "4 points" in tool("collect", str(path)).stdout, "the study's four points")
    again = tool(*submit)
    expect("4 done" in again.stdout and "0 to do" in again.stdout and "job array" not in again.stdout, again.stdout)


CASES = {
    "finish_srun": finish_srun,
    "limit_srun": lambda jobs: limit(jobs, "srun"),
    "limit_mpirun": lambda jobs: limit(jobs, "mpirun"),
    "finish_mpirun": finish_mpirun,
    "cancel_srun": lambda jobs: cancel(jobs, "srun"),
    "cancel_mpirun": lambda jobs: cancel(jobs, "mpirun"),
    "killed_srun": lambda jobs: killed_rank(jobs, "srun"),
    "killed_mpirun": lambda jobs: killed_rank(jobs, "mpirun"),
    "chain": chain,
    "chain_of_plain_sbatch": chain_of_plain_sbatch,
    "no_requeue": no_requeue,
    "endless": endless,
    "silent": silent,
    "touch": touch,
    "study": study,
    "array": test_finding_09_array_tasks_requeue_themselves_only,
    "array_chain": test_finding_09_a_chained_task_has_one_successor,
    "array_shared": test_finding_09_tasks_do_not_share_a_run,
    "salloc": test_finding_10_inside_salloc_it_submits,
    "here": test_finding_10_here_trains_in_the_session,
    "odd_names": test_finding_06_one_reader_of_the_configuration,
    "percent": test_finding_24_percent_signs_are_not_expanded,
    "drain": drain,
}


def run_case(jobs, name):
    start = time.monotonic()
    try:
        CASES[name](jobs)
        verdict = "passed"
    except BaseException:
        verdict = f"FAILED\n{traceback.format_exc()}{jobs.logs(name)}"
    print(f"{time.monotonic() - start:6.1f} s  {name}: {verdict}", flush=True)
    return verdict == "passed"


def main(arguments, folder):
    cluster = Cluster(folder / "c", HOLD_S, KILL_WAIT_S)
    try:
        cluster.start()
        jobs = Jobs(cluster, pathlib.Path(arguments.build).resolve() / "switchyard", folder)
        names = [n for n in CASES if not arguments.cases or n in (*arguments.cases, "finish_srun")]
        pool = concurrent.futures.ThreadPoolExecutor(len(names))  # not waited for when this is interrupted
        return 0 if all(list(pool.map(lambda name: run_case(jobs, name), names))) else 1
    except CannotRun as reason:
        print(f"skipped: {reason}")
        return 77


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("cases", nargs="*")
    given = parser.parse_args()
    work_folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm."))
    work_folder.chmod(0o755)  # munged wants its socket to be reachable
    result = under_guard(lambda: main(given, work_folder))
    if given.keep:
        print(f"kept: {work_folder}")
    else:
        shutil.rmtree(work_folder, ignore_errors=True)
    sys.exit(result)
