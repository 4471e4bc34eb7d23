"""A Slurm cluster of one node on this machine: munged, slurmctld and slurmd in a private folder on private ports.

Works as root in a container and as an ordinary user, without systemd and cgroups. It runs under under_guard(), at whose end
daemons and jobs are killed.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


class CannotRun(Exception):
    """This machine cannot run Slurm; the message says why."""


def prctl(option, value):
    LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def descendants(ancestor):
    """Process ids below `ancestor`."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, queue = [], [ancestor]
    while queue:
        queue += children.get(queue[0], [])
        found += children.get(queue.pop(0), [])
    return found


def kill_descendants():
    """Kills detached processes too: this process is a subreaper, so orphans below it become its children."""
    while left := descendants(os.getpid()):
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(0.05)


def under_guard(work):
    """Runs work() in a child and returns its exit code. Whatever it started is killed afterwards, also when one of the two
    processes is killed: each cleans up after the other."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        code = 1
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            code = work()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        kill_descendants()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kill_descendants()
    return code if code >= 0 else 128 - code


def free_ports(count):
    """Free ports below the kernel's ephemeral range, so that it gives them to no other program before the daemons start."""
    first = 20000 + os.getpid() % 10000
    ports = []
    for port in range(first, first + 1000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise CannotRun(f"no free ports from {first} on")


class Cluster:
    def __init__(self, folder, hold_s, kill_wait_s, cpus=64):
        """folder: its path must be short, because sockets are in it. hold_s: how long a requeued job waits. cpus: the
        number that the node declares, so that jobs run side by side."""
        self.folder = pathlib.Path(folder)
        self.hold_s, self.kill_wait_s, self.cpus = hold_s, kill_wait_s, cpus
        self.node = socket.gethostname().split(".")[0]
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemons = {}

    def start(self):
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        missing = [name for name in NEEDED if not shutil.which(name, path=path)]
        if missing:
            raise CannotRun(f"not installed: {', '.join(missing)} (Debian: slurm-wlm and munge)")
        self.environment["PATH"] = path
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        f = self.folder
        (f / "tmp").mkdir()  # not /tmp, where files of a killed cluster could block the same job number
        (f / "mpi.conf").write_text(f"PMIxCliTmpDirBase={f}/tmp\n")
        (f / "gres.conf").write_text("Name=token Count=8\n")
        self.spawn("munged", "-F", "--force", f"--key-file={key}", f"--socket={f}/munge", f"--pid-file={f}/munged.pid",
                   f"--log-file={f}/log/munged.log", f"--seed-file={f}/munged.seed")
        self.wait("munged", lambda: (f / "munge").exists())
        for last in (False, False, True):
            try:
                self.start_slurm()
                break
            except CannotRun as reason:  # another program may have taken a port since free_ports() looked
                if last or "in use" not in str(reason):
                    raise
                for name in {"slurmctld", "slurmd"} & set(self.daemons):
                    daemon = self.daemons.pop(name)
                    daemon.kill()
                    daemon.wait()
        if "pmix" not in self.call("srun", "--mpi=list").stdout:
            raise CannotRun("this Slurm has no pmix plugin")

    def start_slurm(self):
        (self.folder / "slurm.conf").write_text(self.configuration())
        self.spawn("slurmctld", "-D")
        self.wait("slurmctld", lambda: self.call("sinfo").returncode == 0)
        self.spawn("slurmd", "-D", "-N", self.node)
        self.wait("slurmd", lambda: "idle" in self.call("sinfo", "--noheader", "--format=%T").stdout)

    def configuration(self):
        f, (controller, daemon) = self.folder, free_ports(2)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        return f"""ClusterName=switchyard
SlurmctldHost={self.node}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={f}/munge,cred_expire={self.hold_s}
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={f}/state
SlurmdSpoolDir={f}/spool
SlurmctldPidFile={f}/slurmctld.pid
SlurmdPidFile={f}/slurmd.pid
SlurmctldLogFile={f}/log/slurmctld.log
SlurmdLogFile={f}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
MpiDefault=pmix
ReturnToService=2
KillWait={self.kill_wait_s}
GresTypes=token
NodeName={self.node} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory=4000 Feature=small Gres=token:8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""

    def spawn(self, *command):
        with open(self.folder / "log" / f"{command[0]}.out", "w") as out:
            self.daemons[command[0]] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, cwd=self.folder,
                preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))

    def wait(self, daemon, ready, limit_s=60):
        end = time.monotonic() + limit_s
        while not ready():
            if self.daemons[daemon].poll() is not None or time.monotonic() > end:
                raise CannotRun(f"{daemon} does not come up here:\n{self.last_words(daemon)}")
            time.sleep(0.2)

    def last_words(self, daemon):
        texts = [p.read_text(errors="replace") for p in (self.folder / "log").glob(f"{daemon}*")]
        return "\n".join("\n".join(text.splitlines()[-10:]) for text in texts if text)

    def call(self, *command, **keywords):
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, **keywords)
