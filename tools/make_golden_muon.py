#!/usr/bin/env python3
"""Trains a tiny LLaMA with torch.optim.Muon in f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/muon_f64.h5. Initial weights, tokens and model are those of llama_f64.h5 (tools/make_golden.py). The linears of
the blocks are torch.optim.Muon's, everything else is torch.optim.AdamW's. PyTorch iterates in bf16 whatever the weights are: for
the length of an update the name torch.bfloat16 stands for f64 here, so that its own code runs in f64. Layout: FILE_LAYOUT below.

  .venv-torch/bin/python tools/make_golden_muon.py       (tools/torch_venv.sh; PyTorch 2.9 or later)
"""
import argparse
import pathlib
import sys
from unittest import mock

import h5py
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
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in base.initial_weights().items()}
    linears = [w for name, w in weights.items() if name.endswith("_proj.weight")]
    others = [w for name, w in weights.items() if not name.endswith("_proj.weight")]
    muon = torch.optim.Muon(linears, lr=OPTIM["lr"], weight_decay=OPTIM["weight_decay"], momentum=keys["momentum"],
                            nesterov=keys["nesterov"], ns_steps=keys["iterations"], adjust_lr_fn=keys["update_scale"])
    adamw = torch.optim.AdamW(others, lr=OPTIM["dense_lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]), eps=OPTIM["eps"],
                              weight_decay=OPTIM["weight_decay"])
    tokens, targets = (torch.from_numpy(a).long() for a in base.batches())
    record = dict(loss=[], grad_norm=[])
    for step in range(base.STEPS):
        loss = base.cross_entropy(base.forward(weights, tokens[step], tied=False), targets[step])
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
        loss.backward()
        norm = np.sqrt(sum(w.grad.square().sum().item() for w in weights.values()))
        for w in weights.values():
            w.grad.mul_(min(1.0, OPTIM["clip_norm"] / norm))
        with mock.patch.object(torch, "bfloat16", torch.float64):
            muon.step()
        adamw.step()
        record["loss"].append(loss.item())
        record["grad_norm"].append(norm)
    record["final"] = {name: w.detach().numpy() for name, w in weights.items() if name.endswith("_proj.weight")}
    return record


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/muon_f64.h5"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with h5py.File(arguments.output, "w", libver=("v110", "v110")) as file:
        file.attrs.update(OPTIM)
        file.attrs.update(steps=base.STEPS)
        for key, text in (("versions", f"torch {torch.__version__}"), ("layout", FILE_LAYOUT),
                          ("command", "python tools/make_golden_muon.py")):
            file.attrs[key] = np.bytes_(text)
        for variant, keys in VARIANTS.items():
            record = train(keys)
            base.put(file, f"{variant}/loss", np.array(record["loss"]))
            base.put(file, f"{variant}/grad_norm", np.array(record["grad_norm"]))
            file[variant].attrs.update({key: np.bytes_(str(value).lower()) for key, value in keys.items()})
            for name, value in record["final"].items():
                base.put(file, f"{variant}/final/{name}", value)
            print(variant, "loss", *(f"{x:.4f}" for x in record["loss"]), " norm", *(f"{x:.3f}" for x in record["grad_norm"]))
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size} bytes")
    return 0 if size < 200_000 else 1


if __name__ == "__main__":
    sys.exit(main())
