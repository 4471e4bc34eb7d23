#!/usr/bin/env python3
"""Trains a tiny LLaMA with PEFT's LoRA, DoRA and Riemannian preconditioner in f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/peft_f64.h5. Initial weights, tokens and model are those of llama_f64.h5 (tools/make_golden.py); factors A
are drawn by Philox, B is zero. Embedding, head and norms are trained too, as Switchyard does. Layout: FILE_LAYOUT below.

  .venv-torch/bin/python tools/make_golden_peft.py       (tools/torch_venv.sh --with-transformers, and peft)
"""
import sys

import golden_method as golden
import make_golden as base
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

    def loss_of(tokens, targets):
        logits = model(input_ids=tokens).logits
        return torch.nn.functional.cross_entropy(logits.reshape(-1, base.MODEL["vocab_size"]), targets.reshape(-1),
                                                 ignore_index=-1)

    record = golden.record_steps(loss_of, trained.values(), [optimizer], OPTIM["clip_norm"])
    record["final"] = {name: p.detach().numpy() for name, p in trained.items() if "lora" in name}
    return record


def fill(file):
    for linear, value in initial_a().items():
        base.put(file, f"lora_A/{linear}", value)
    for method in ("lora", "dora", "riemannian"):
        golden.put_record(file, method, train(method))


if __name__ == "__main__":
    import transformers
    sys.exit(golden.write_golden("peft", __doc__, dict(OPTIM, low_rank=LOW_RANK, alpha=ALPHA, damping=DAMPING),
                                 f", transformers {transformers.__version__}, peft {peft.__version__}", FILE_LAYOUT, fill))
