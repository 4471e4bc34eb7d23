#!/usr/bin/env python3
"""Trains a tiny LLaMA with GaLore's own program in f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/galore_f64.h5. Initial weights, tokens and model are those of llama_f64.h5 (tools/make_golden.py). All is
trained by galore_torch.GaLoreAdamW, the linears of the blocks with a projection of type `std`. Two things are not as published,
so that there is one right result: it decomposes every gradient in f32 (for the length of an update the name torch.float stands
for f64 here), and keeps the signs of LAPACK (each vector's largest element is made positive here). `eps` is next to nothing,
because its place differs, and there is no decay, which it applies after the update. Layout: FILE_LAYOUT below.

  .venv-torch/bin/python tools/make_golden_galore.py     (tools/torch_venv.sh --with-transformers, and galore-torch 1.0 --no-deps)
"""
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from unittest import mock

import golden_method as golden
import make_golden as base
import numpy as np
import torch

# The package's __init__ imports its 8-bit optimizer too, which needs bitsandbytes and is not used here.
package = types.ModuleType("galore_torch")
package.__path__ = importlib.util.find_spec("galore_torch").submodule_search_locations
sys.modules["galore_torch"] = package
galore, projector = (importlib.import_module(f"galore_torch.{name}") for name in ("adamw", "galore_projector"))

FILE_LAYOUT = """\
attributes of /: optimizer settings (key names of [optim]: lr of the projected matrices, dense_lr of the others; nothing is
  clipped), rank, alpha (`scale`), update_interval (`update_proj_gap`), steps, versions, command. Sizes, tokens, targets and
  initial weights: llama_f64.h5.
/svd/loss               f64 (steps): mean cross-entropy before the update of that step.
/svd/grad_norm          f64 (steps): global norm of the projected gradients of the linears and the gradients of the others.
/svd/final/<name>       f64 (out, in): weights of the linears after the last step.
/svd/final/<linear>.projector  f64 (projected dimension, rank): the last basis."""

OPTIM = dict(base.OPTIM, lr=2e-2, dense_lr=4e-3, eps=1e-30, weight_decay=0.0, clip_norm=1e9)
METHOD = dict(rank=5, alpha=0.25, update_interval=4)


class SignedProjector(projector.GaLoreProjector):
    """The published projector with signs that do not depend on a library; keeps what it projected."""

    def get_orthogonal_matrix(self, weights, rank, type):
        basis = super().get_orthogonal_matrix(weights, rank, type)
        vectors = basis if type == "right" else basis.T  # rows
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        return basis * (largest.sign() if type == "right" else largest.sign().T)

    def project(self, full_rank_grad, iter):
        self.projected = super().project(full_rank_grad, iter)
        return self.projected


def train():
    weights = golden.initial_weights()
    linears = {name: w for name, w in weights.items() if name.endswith("_proj.weight")}
    others = [w for name, w in weights.items() if name not in linears]
    optimizer = galore.AdamW(
        [dict(params=others, lr=OPTIM["dense_lr"]),
         dict(params=list(linears.values()), rank=METHOD["rank"], update_proj_gap=METHOD["update_interval"],
              scale=METHOD["alpha"], proj_type="std")],
        lr=OPTIM["lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]), eps=OPTIM["eps"], no_deprecation_warning=True)

    def step():
        with mock.patch.object(torch, "float", torch.float64):
            optimizer.step()
        seen = [w.grad for w in others] + [optimizer.state[w]["projector"].projected for w in linears.values()]
        return np.sqrt(sum(g.square().sum().item() for g in seen))

    with mock.patch.object(galore, "GaLoreProjector", SignedProjector):
        record = golden.record_steps(
            lambda tokens, targets: base.cross_entropy(base.forward(weights, tokens, tied=False), targets),
            weights.values(), [optimizer], OPTIM["clip_norm"], step)
    record["final"] = {name: w.detach().numpy() for name, w in linears.items()}
    for name, w in linears.items():
        basis = optimizer.state[w]["projector"].ortho_matrix
        record["final"][name.removesuffix("weight") + "projector"] = (basis.T if w.shape[0] >= w.shape[1] else basis).numpy()
    return record


if __name__ == "__main__":
    sys.exit(golden.write_golden("galore", __doc__, dict(OPTIM, **METHOD),
                                 f", galore-torch {importlib.metadata.version('galore-torch')}", FILE_LAYOUT,
                                 lambda file: golden.put_record(file, "svd", train())))
