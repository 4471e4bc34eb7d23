#!/usr/bin/env python3
"""Trains a tiny LLaMA with PEFT's LoRA, DoRA and Riemannian preconditioner in f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/peft_f64.h5. Initial weights, tokens and model are those of llama_f64.h5 (tools/make_golden.py); factors A
are drawn by Philox, B is zero. Embedding, head and norms are trained too, as Switchyard does. Layout: FILE_LAYOUT below.

  .venv-torch/bin/python tools/make_golden_peft.py       (tools/torch_venv.sh --with-transformers, and peft)
"""
import argparse
import pathlib
import sys

import h5py
import make_golden as base
import numpy as np
import peft
import torch
from peft.optimizers import create_riemannian_optimizer

FILE_LAYOUT = """\
attributes of /: low_rank, alpha, damping (of riemannian), AdamW settings (key names of [optim]; decay acts on every tensor but the magnitudes), steps,
  versions, command. Sizes, tokens, targets and initial weights: llama_f64.h5.
/lora_A/<linear>      f64 (low_rank, in): before step 1; lora_B is zero, magnitudes are norms of rows.
/<method>/loss        f64 (steps): mean cross-entropy before the update of that step; method: lora, dora or riemannian.
/<method>/grad_norm   f64 (steps): global norm of all gradients before clipping.
/<method>/final/<name>  f64: after the last step. <linear>.lora_A (low_rank, in), .lora_B (out, low_rank), .lora_magnitude (out)."""

LOW_RANK, ALPHA, DAMPING = 4, 6.0, 1e-2
OPTIM = dict(base.OPTIM, lr=4e-3)


def initial_a():
    """Uniform in +-1 / sqrt(in), by linear."""
    factors = {}
    for name, shape in base.weight_shapes().items():
        if name.endswith("_proj.weight"):
            linear = name.removesuffix(".weight")
            draws = 2.0 * base.uniform(base.stream_key(base.SEED, linear + ".lora_A"), LOW_RANK * shape[1]) - 1.0
            factors[linear] = draws.reshape(LOW_RANK, shape[1]) / shape[1] ** 0.5
    return factors


def adapted_model(dora):
    config = peft.LoraConfig(r=LOW_RANK, lora_alpha=ALPHA, lora_dropout=0.0, use_dora=dora, target_modules="all-linear")
    model = peft.get_peft_model(base.reference_model(tied=False), config)
    factors = initial_a()
    with torch.no_grad():
        for name, module in model.named_modules():
            linear = name.removeprefix("base_model.model.")
            if linear in factors:
                module.lora_A["default"].weight.copy_(torch.tensor(factors.pop(linear)))
                assert module.lora_B["default"].weight.abs().max() == 0
    assert not factors, factors
    for name, parameter in model.named_parameters():
        if ".base_layer." not in name:
            parameter.requires_grad_(True)
        assert parameter.dtype == torch.float64, name
    return model


def own_name(name):
    """PEFT's name of a trained tensor in Switchyard's checkpoints."""
    name = name.removeprefix("base_model.model.")
    for part in ("lora_A", "lora_B"):
        name = name.replace(f".{part}.default.weight", f".{part}")
    return name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude")


def train(method):
    model = adapted_model(dora=method == "dora")
    trained = {own_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    plain = [p for name, p in trained.items() if "magnitude" in name]
    decayed = [p for name, p in trained.items() if "magnitude" not in name]
    rates = dict(lr=OPTIM["lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]), eps=OPTIM["eps"], weight_decay=OPTIM["weight_decay"])
    if method == "riemannian":
        optimizer = create_riemannian_optimizer(model, torch.optim.AdamW, reg=DAMPING, **rates)
    else:
        optimizer = torch.optim.AdamW([dict(params=decayed), dict(params=plain, weight_decay=0.0)], **rates)
    tokens, targets = (torch.from_numpy(a).long() for a in base.batches())
    record = dict(loss=[], grad_norm=[])
    for step in range(base.STEPS):
        logits = model(input_ids=tokens[step]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, base.MODEL["vocab_size"]), targets[step].reshape(-1),
                                                 ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        norm = np.sqrt(sum(p.grad.square().sum().item() for p in trained.values()))
        for p in trained.values():
            p.grad.mul_(min(1.0, OPTIM["clip_norm"] / norm))
        optimizer.step()
        record["loss"].append(loss.item())
        record["grad_norm"].append(norm)
    record["final"] = {name: p.detach().numpy() for name, p in trained.items()}
    return record


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/peft_f64.h5"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = {method: train(method) for method in ("lora", "dora", "riemannian")}
    with h5py.File(arguments.output, "w", libver=("v110", "v110")) as file:
        file.attrs.update(OPTIM)
        file.attrs.update(low_rank=LOW_RANK, alpha=ALPHA, steps=base.STEPS)
        import transformers
        versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
        for key, text in (("versions", versions), ("layout", FILE_LAYOUT), ("command", "python tools/make_golden_peft.py")):
            file.attrs[key] = np.bytes_(text)
        file.attrs["damping"] = DAMPING
        for linear, value in initial_a().items():
            base.put(file, f"lora_A/{linear}", value)
        for method, record in records.items():
            base.put(file, f"{method}/loss", np.array(record["loss"]))
            base.put(file, f"{method}/grad_norm", np.array(record["grad_norm"]))
            for name, value in record["final"].items():
                if "lora" in name:
                    base.put(file, f"{method}/final/{name}", value)
            print(method, "loss", *(f"{x:.4f}" for x in record["loss"]), " norm", *(f"{x:.3f}" for x in record["grad_norm"]))
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size} bytes")
    return 0 if size < 200_000 else 1


if __name__ == "__main__":
    sys.exit(main())
