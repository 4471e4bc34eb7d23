# ReFrame test of an installed program: tokens from text, a run that is interrupted, resumed and finished, a good
# checkpoint, and tokens per second.
#   reframe -C jobs/reframe/workstation.py -c jobs/reframe/switchyard_check.py -r -S program=$PWD/build/release/switchyard
# On a cluster: leave -C to the site's own configuration; -S num_nodes=2 -S ranks_per_node=8 -S num_cpus_per_task=16.
# Checked: run with ReFrame 4.10 and the configuration workstation.py beside it (mpirun, no scheduler).
import reframe as rfm
import reframe.utility.sanity as sn

STEPS = 30


@rfm.simple_test
class SwitchyardCheck(rfm.RunOnlyRegressionTest):
    """Two starts of one run: to half of the steps, then to the end."""

    descr = "Switchyard: train, resume, verify"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    program = variable(str, value="switchyard")
    num_nodes = variable(int, value=1)
    ranks_per_node = variable(int, value=2)
    tp = parameter([1, 2])
    num_cpus_per_task = 1
    time_limit = "10m"

    @run_before("run")
    def prepare(self):
        self.num_tasks_per_node = self.ranks_per_node
        self.num_tasks = self.num_nodes * self.ranks_per_node
        self.env_vars = {"OMP_NUM_THREADS": self.num_cpus_per_task}
        self.executable = self.program
        train = [
            "train", "--data.tokens=tokens.h5", "--run.dir=run", f"--run.steps={STEPS}", "--run.dtype=f32",
            "--run.log_interval=1", f"--parallel.tp={self.tp}", "--model.hidden_size=96", "--model.ffn_size=256",
            "--data.seq_len=64", "--data.micro_batch=2", f"--data.global_batch={4 * self.num_tasks}", "--optim.warmup_steps=5",
            "--method.name=switchlora", "--method.rank=24",
        ]
        self.job.num_tasks, self.job.num_tasks_per_node = self.num_tasks, self.num_tasks_per_node
        launch = self.job.launcher.run_command(self.job)
        self.prerun_cmds = [
            "for i in $(seq 4000); do echo \"line $i of a text with $((i % 17)) and $((i % 31)) words\"; "
            "[ $((i % 20)) -ne 0 ] || echo; done >text.txt",
            f"{self.program} tokenize text.txt --output=tokens.h5 --vocab_size=300 --validation=0.05",
            f"{launch} {self.program} {' '.join(train)} --run.stop_step={STEPS // 2}",
        ]
        self.executable_opts = train
        self.postrun_cmds = [f"{self.program} verify run/checkpoints/step_*.h5", "cat run/status.json"]

    @sanity_function
    def finished_after_a_resume(self):
        return sn.all([
            sn.assert_found(rf"^stopped at step {STEPS // 2} ", self.stdout),
            sn.assert_found(rf"^resuming from step {STEPS // 2} ", self.stdout),
            sn.assert_found(rf"^finished at step {STEPS} ", self.stdout),
            sn.assert_found(r'"outcome": "finished"', self.stdout),
            sn.assert_lt(self.loss(-1), self.loss(0)),
        ])

    @deferrable
    def loss(self, index):
        return sn.extractall(r"^step \d+/\d+ +loss (\S+)", self.stdout, 1, float)[index]

    @performance_function("tokens/s")
    def throughput(self):
        return sn.extractall(r"^step .* (\d+) tok/s", self.stdout, 1, float)[-1]
