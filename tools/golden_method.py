"""What the scripts share that record ten steps of another program's training method in f64: make_golden_muon.py,
make_golden_peft.py, make_golden_galore.py. Initial weights, tokens and model are those of llama_f64.h5 (make_golden.py)."""
import argparse
import pathlib

import h5py
import make_golden as base
import numpy as np
import torch


def initial_weights():
    return {name: torch.tensor(value, requires_grad=True) for name, value in base.initial_weights().items()}


def record_steps(loss_of, trained, optimizers, clip_norm, step=None):
    """loss_of(tokens, targets); trained: parameters whose gradients are measured and clipped together; step(): updates
    (default: every optimizer's), and may return a norm of the gradients to be recorded in place of that of `trained`."""
    tokens, targets = (torch.from_numpy(a).long() for a in base.batches())
    record = dict(loss=[], grad_norm=[])
    for i in range(base.STEPS):
        loss = loss_of(tokens[i], targets[i])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        norm = np.sqrt(sum(p.grad.square().sum().item() for p in trained))
        for p in trained:
            p.grad.mul_(min(1.0, clip_norm / norm))
        measured = step() if step else [optimizer.step() for optimizer in optimizers] and None
        record["loss"].append(loss.item())
        record["grad_norm"].append(norm if measured is None else measured)
    return record


def put_record(file, group, record):
    """Losses, norms and the tensors of record["final"]."""
    for key in ("loss", "grad_norm"):
        base.put(file, f"{group}/{key}", np.array(record[key]))
    for name, value in record["final"].items():
        base.put(file, f"{group}/final/{name}", value)
    print(group, "loss", *(f"{x:.4f}" for x in record["loss"]), " norm", *(f"{x:.3f}" for x in record["grad_norm"]))


def write_golden(name, description, settings, versions, layout, fill):
    """Writes tests/golden/<name>_f64.h5 (or --output): settings as attributes, then fill(file). Returns 1 if it is too large."""
    default = pathlib.Path(__file__).resolve().parent.parent / f"tests/golden/{name}_f64.h5"
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with h5py.File(arguments.output, "w", libver=("v110", "v110")) as file:
        file.attrs.update(settings)
        file.attrs.update(steps=base.STEPS)
        for key, text in (("versions", f"torch {torch.__version__}{versions}"), ("layout", layout),
                          ("command", f"python tools/make_golden_{name}.py")):
            file.attrs[key] = np.bytes_(text)
        fill(file)
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size} bytes")
    return 0 if size < 200_000 else 1
