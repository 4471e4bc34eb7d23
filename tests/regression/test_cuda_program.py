#!/usr/bin/python3
"""The CUDA program as a user meets it, on an emulated GPU: what it says at the start, without a GPU, and out of memory.

--build=DIRECTORY --program=switchyard-cuda-emulated
"""
import json
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

OF_A_STEP = ["optimizer", "data", "forward", "backward", "optimizer", "switching"]


def overlaps_of_gathers(lines):
    """From a log of streams (tests/cuda_emulation/stream_log.hpp): for each gather of a forward or backward phase the products
    that the compute stream has between what the gather waits for and its own wait for the gather; and waits of the host there."""
    compute, communication = "0", "1"
    products, waits, gathers, host_waits, ranges, follows = [], [], [], [], [], 0
    for line in lines:
        words = line.split()
        if words[0] == "range":
            ranges.pop() if words[1] == "ends" else ranges.append(words[1])
            continue
        inside = any(phase in ("forward", "backward") for phase in ranges)
        if words[0] == "host":
            host_waits += [line] * inside
        elif words[0] == compute and words[2] == "product":
            products.append(int(words[1]))
        elif words[0] == compute and words[2:4] == ["waits", communication]:
            waits.append((int(words[1]), int(words[4])))
        elif words[0] == communication and words[2:4] == ["waits", compute]:
            follows = max(follows, int(words[4]))
        elif words[0] == communication and words[2] == "ncclAllGather" and inside:
            gathers.append((int(words[1]), follows))
    overlaps = []
    for number, begin in gathers:
        end = min((at for at, until in waits if until >= number), default=begin)
        overlaps.append(sum(begin < product < end for product in products))
    return overlaps, host_waits


class CudaProgram(program.Test):
    def command(self, *words, **environment):
        return subprocess.run([program.BUILD / program.TRAINER, *map(str, words)], env={**program.ENVIRONMENT, **environment},
                              capture_output=True, text=True, timeout=program.PATIENCE_S)  # fmt: skip

    def short_run(self, name="run", **settings):
        return self.run_of(name, **{"data.global_batch": 2, "model.num_layers": 1, "run.steps": 4, "run.stop_step": 4, **settings})

    def test_the_start_names_the_gpu_of_each_rank(self):
        run = self.short_run(**{"run.stop_step": 1})
        output = self.assert_trains(run, ranks=2, **{"parallel__tp": 2})
        for rank in range(2):
            self.assertRegex(output, rf"rank {rank} +\S+, GPU 0 \(emulated GPU\), cores ")
        self.assertIn("several ranks share GPU 0", output)
        run = self.short_run("spread", **{"run.stop_step": 1})
        run.environment["CUDA_EMULATION_DEVICES"] = "2"
        output = self.assert_trains(run, ranks=2, **{"parallel__tp": 2})
        self.assertRegex(output, r"rank 1 +\S+, GPU 1 \(emulated GPU\)")
        self.assertNotIn("several ranks share", output)

    def test_ranks_compute_the_same_bits_however_tensors_travel(self):
        """The sum over dp, the gathers of a split frozen weight and the moves of shards: by NCCL, MPI and through the host."""
        losses = {}
        for way, words in (("nccl", "NCCL"), ("mpi", "MPI from and to GPU memory"), ("staged", "MPI through pinned host memory")):
            run = self.short_run(way, **{"data.global_batch": 4, "parallel.shard_frozen": "true", "method.switch_interval": 2, "method.freeze_steps": 1})
            run.environment |= {"CUDA_EMULATION_DEVICES": "4", "CUDA_EMULATION_MPI": "1"}
            output = self.assert_trains(run, ranks=4, parallel__collectives=way)
            self.assertRegex(output, rf"collectives dp: {words}.*; tp: one rank")
            losses[way] = run.steps("loss", "grad_norm")
        self.assertEqual(losses["nccl"], losses["staged"])
        self.assertEqual(losses["mpi"], losses["staged"])

    def test_a_way_that_ranks_do_not_have_is_refused_before_anything_is_computed(self):
        run = self.short_run("refused", **{"parallel.collectives": "nccl"})
        launch = run.start(2)
        self.assert_ends(launch, 1)
        self.assertRegex(launch.output(), "parallel.collectives = nccl cannot be used here: ranks 0 and 1 .* share a GPU")

    def test_attention_is_cudnns_where_it_agrees_and_ours_where_it_does_not(self):
        losses = {}
        for name, word, asked, said in (
            ("cudnn", "", "auto", "cuDNN 9.19.0, which agrees with our kernel"),
            ("demanded", "", "cudnn", "cuDNN 9.19.0, which agrees with our kernel"),
            ("own", "", "own", "own kernel, by kernels.attention"),
            ("wrong", "wrong_d_q:1", "auto", "own kernel, not cuDNN's: on rank 1, its d_q differs from that of our kernel by "),
        ):
            run = self.short_run(name, **{"run.dtype": "bf16", "kernels.attention": asked, "model.num_heads": 3, "model.num_kv_heads": 3})
            run.environment["CUDA_EMULATION_CUDNN"] = word
            output = self.assert_trains(run, ranks=2)
            self.assertIn(f"\nattention   {said}", output)
            environment = json.loads((run.path / "environment.json").read_text())
            self.assertTrue(environment["attention"].startswith(said), environment["attention"])
            losses[name] = run.steps("loss")
        self.assertEqual(losses["demanded"], losses["cudnn"])
        self.assertEqual(losses["wrong"], losses["own"])
        self.assertNotEqual(losses["cudnn"], losses["own"])

    def test_cudnn_that_is_asked_for_and_not_there_is_an_error(self):
        run = self.short_run("refused", **{"run.dtype": "f32", "kernels.attention": "cudnn"})
        launch = run.start(2)
        self.assert_ends(launch, 1)
        self.assertRegex(launch.output(), "kernels.attention = cudnn asks for a kernel that cannot be used here: it is for bf16, .*; use auto")

    def test_commands_that_compute_nothing_need_no_gpu(self):
        run = self.short_run()
        self.assert_trains(run)
        settings = program.arguments({**run.settings, "run.dir": self.folder / "none"})
        for words, expected in (
            (["plan", *settings, "--run.peak_flops=0"], "no GPU can be used here"),
            (["plan", *settings, "--run.peak_flops=1e9"], "at the rate of run.peak_flops"),
            (["inspect", run.checkpoint()], "step"),
            (["verify", run.checkpoint()], ""),
            (["diff", run.checkpoint(), run.checkpoint()], "identical"),
            (["tokenize", pathlib.Path(__file__), f"--output={self.folder / 't.h5'}", "--vocab_size=400"], ""),
        ):
            result = self.command(*words, CUDA_EMULATION_DEVICES="0")
            self.assertEqual(result.returncode, 0, f"{words[0]}: {result.stdout}{result.stderr}")
            self.assertIn(expected, result.stdout, words[0])
        result = self.command("train", *settings, CUDA_EMULATION_DEVICES="0")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stderr, r"computes on an NVIDIA GPU, and none can be used here.*; start it on a node with a GPU")

    def test_pinned_memory_that_is_not_there_is_named_with_its_purpose(self):
        for ranks, megabytes, purpose in ((1, 10, "uploads"), (1, 20, "downloads"), (2, 20, "messages between ranks")):
            run = self.short_run(f"pinned{ranks}.{megabytes}", **{"data.global_batch": 4})
            run.environment["CUDA_EMULATION_PINNED"] = str(megabytes << 20)
            code, output = run.train(ranks)
            self.assertEqual(code, 1, output)
            self.assertRegex(output, rf"out of memory: \S+ MiB of pinned host memory for {purpose} are not there .*; raise `ulimit -l`")

    def test_a_run_takes_the_memory_that_plan_says(self):
        """With saves in the background and a resumed run; `plan` needs no GPU for it."""
        run = self.short_run(**{"run.save_interval": 2, "data.global_batch": 4, "parallel.tp": 2})
        for stop in (3, 6):
            self.assert_trains(run, ranks=2, run__stop_step=stop, run__steps=6)
        result = self.command("plan", "--json", "--ranks=2", *program.arguments({**run.settings, "run.steps": 6}), CUDA_EMULATION_DEVICES="0")
        self.assertEqual(result.returncode, 0, result.stderr)
        plan = json.loads(result.stdout)
        self.assertGreater(plan["memory"]["workspace"], 32 << 20, "in which kernels work")
        for end in run.events("finish"):
            memory = end["memory"]
            self.assertEqual(memory["planned"], plan["memory"])
            self.assertEqual(memory["arena"], plan["memory"])
            self.assertEqual(memory["process"], plan["memory"]["total"])
            self.assertEqual(memory["pinned"], plan["pinned_memory"])
            self.assertEqual(memory["pinned_planned"], plan["pinned_memory"])

    def test_a_gpu_that_is_too_small_is_named_with_what_needs_its_memory(self):
        settings = program.arguments(self.short_run(**{"model.ffn_size": 9000}).settings)
        result = self.command("train", *settings, CUDA_EMULATION_MEMORY=str(36 << 20))  # of which products take 32 MiB
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stderr, r"out of memory: 1 ranks on GPU 0 of \S+ need .* are available.*activations.*; use more nodes")

    def test_a_device_that_hangs_is_described_by_what_was_called_last(self):
        """A kernel that never ends, in the steps: alone the host goes on to their one read; with others to a collective, where
        it waits for the device or for the other rank, whichever is stuck first; and either rank may be the one that ends all."""
        waits = ", the host waits for the device"
        collective = rf", last collective: [\w-]+ of \w+, .+ over 2 ranks, the host waits for it({waits})?"
        for ranks, last in ((1, waits), (2, collective)):
            run = self.short_run(f"ranks{ranks}", **{"run.steps": 100000, "run.stop_step": 0, "run.hang_timeout": 5})
            run.environment["CUDA_EMULATION_HANG"] = "3000"
            code, output = run.train(ranks, **({"parallel__tp": 2} if ranks > 1 else {}))
            self.assertEqual(code, 1, output)
            expected = rf"no progress for \d+ s, last event: \w+ in step \d+ \(phase \w+, last kernel: \w+{last}; "
            self.assertRegex(output, expected)
            self.assert_status(run, "failed", ", the host waits for ")

    def test_frozen_weights_are_gathered_while_the_block_before_computes(self):
        """By what the program asks of streams: a gather waits for the compute stream, and that for the gather, but between the
        two points the compute stream has the products of a block; and the host waits for neither. The first block of a pass
        over fresh weights has none before it."""
        layers, steps = 4, 2
        run = self.short_run(**{"data.global_batch": 4, "model.num_layers": layers, "run.stop_step": steps, "parallel.shard_frozen": "true"})
        run.environment |= {"CUDA_EMULATION_DEVICES": "2", "CUDA_EMULATION_STREAMS": self.folder / "streams"}
        self.assert_trains(run, ranks=2, parallel__collectives="nccl")
        logs = list(self.folder.glob("streams.*"))
        self.assertEqual(len(logs), 2)
        for log in logs:
            overlaps, host_waits = overlaps_of_gathers(log.read_text().splitlines())
            self.assertEqual(host_waits, [])
            of_a_block = 7
            # Forward and backward of the first micro-batch, less what is still there at the turn; the second likewise.
            gathers = steps * of_a_block * (2 * (layers - 1) + 2 * (layers - 2))
            self.assertEqual(len(overlaps), gathers)
            alone = [products for products in overlaps if products < of_a_block]
            self.assertEqual(alone, [0] * of_a_block * steps, "of the first block of each step")

    def test_a_profiler_sees_the_phases_and_the_steps_asked_for(self):
        run = self.short_run(**{"run.trace_steps": "2:3"})
        run.environment["CUDA_EMULATION_TRACE"] = "1"
        lines = [line for line in self.assert_trains(run).splitlines() if line.startswith(("range", "capture"))]
        begins, ends = lines.index("capture begins"), lines.index("capture ends")
        steps = [f"range {phase} 0" for phase in OF_A_STEP]
        inside = [line for line in lines[begins + 1 : ends] if line.endswith(" 0")]
        once = [f"range {p} 0" for p in ("data", "forward", "backward")]
        per_step = steps[:1] + once * 2 + steps[4:]
        self.assertEqual(inside, per_step * 2)
        self.assertEqual([line for line in lines[:begins] if line.endswith(" 0")], per_step)


if __name__ == "__main__":
    unittest.main()
