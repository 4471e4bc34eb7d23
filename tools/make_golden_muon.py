#!/usr/bin/env python3
"""Trains a tiny LLaMA with torch.optim.Muon in f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/muon_f64.h5. Initial weights, tokens and model are those of llama_f64.h5 (tools/make_golden.py). The linears of
the blocks are torch.optim.Muon's, everything else is torch.optim.AdamW's. PyTorch iterates in bf16 whatever the weights are: for
the length of an update the name torch.bfloat16 stands for f64 here, so that its own code runs in f64. Layout: FILE_LAYOUT below.

  .venv-torch/bin/python tools/make_golden_muon.py       (tools/torch_venv.sh; PyTorch 2.9 or later)
"""
import sys
from unittest import mock

import golden_method as golden
import make_golden as base
import numpy as np
import torch

FILE_LAYOUT = """\
attributes of /: optimizer settings (key names of [optim]: lr of Muon, dense_lr of AdamW; decay acts on every tensor), steps,
  versions, command. Sizes, tokens, targets and initial weights: llama_f64.h5.
/<variant>            attributes: keys of [method]; update_scale is torch's adjust_lr_fn, iterations its ns_steps.
/<variant>/loss       f64 (steps): mean cross-entropy before the update of that step.
/<variant>/grad_norm  f64 (steps): global norm of all gradients before clipping.
/<variant>/final/<name>  f64 (out, in): weights of the linears after the last step."""

OPTIM = dict(base.OPTIM, lr=2e-2, dense_lr=4e-3)
VARIANTS = {
    "default": dict(momentum=0.95, nesterov=True, iterations=5, update_scale="match_rms_adamw"),
    "original": dict(momentum=0.8, nesterov=False, iterations=4, update_scale="original"),
}


def train(keys):
    weights = golden.initial_weights()
    linears = [w for name, w in weights.items() if name.endswith("_proj.weight")]
    others = [w for name, w in weights.items() if not name.endswith("_proj.weight")]
    muon = torch.optim.Muon(linears, lr=OPTIM["lr"], weight_decay=OPTIM["weight_decay"], momentum=keys["momentum"],
                            nesterov=keys["nesterov"], ns_steps=keys["iterations"], adjust_lr_fn=keys["update_scale"])
    adamw = torch.optim.AdamW(others, lr=OPTIM["dense_lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]), eps=OPTIM["eps"],
                              weight_decay=OPTIM["weight_decay"])

    def step():
        with mock.patch.object(torch, "bfloat16", torch.float64):
            muon.step()
        adamw.step()

    record = golden.record_steps(
        lambda tokens, targets: base.cross_entropy(base.forward(weights, tokens, tied=False), targets),
        weights.values(), [muon, adamw], OPTIM["clip_norm"], step)
    record["final"] = {name: w.detach().numpy() for name, w in weights.items() if name.endswith("_proj.weight")}
    return record


def fill(file):
    for variant, keys in VARIANTS.items():
        golden.put_record(file, variant, train(keys))
        file[variant].attrs.update({key: np.bytes_(str(value).lower()) for key, value in keys.items()})


if __name__ == "__main__":
    sys.exit(golden.write_golden("muon", __doc__, OPTIM, "", FILE_LAYOUT, fill))
