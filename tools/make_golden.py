#!/usr/bin/env python3
"""Trains a tiny LLaMA in PyTorch f64 for ten steps and records what Switchyard must reproduce to 1e-9.

Writes tests/golden/llama_f64.h5: initial weights, tokens, every gradient of step 1, sign projections of every later
gradient, losses and gradient norms; once with its own head and once (group /tied) with tied embeddings.
All random numbers come from Philox as in src/core/rng.hpp. Layout of the file: FILE_LAYOUT below (stored in it).

  .venv-torch/bin/python tools/make_golden.py            write the file      (environment: tools/torch_venv.sh)
  .venv-torch/bin/python tools/make_golden.py --check    compare the file and the model with `transformers` and
                                                         torch.optim.AdamW   (tools/torch_venv.sh --with-transformers)
"""
import argparse
import pathlib
import sys

import h5py
import numpy as np
import torch

FILE_LAYOUT = """\
attributes of /: sizes (key names of [model]), AdamW settings (key names of [optim]; weight decay acts on every tensor),
  seed, steps, torch_version, command.
/weights/<name>      f64 (out, in) or (size): before step 1. Names: Hugging Face. The tied variant has no lm_head.weight.
/tokens, /targets    i32 (steps, batch, seq_len): the input and its next tokens; target -1 is ignored.
/loss                f64 (steps): mean cross-entropy over the targets that are not -1, before the update of that step.
/grad_norm           f64 (steps): global norm of all gradients before clipping. Then g *= min(1, clip_norm / norm).
/gradients/<name>    f64, shape of the weight: gradient of step 1 before clipping.
/projections/<name>  f64 (rows, 3): row t, column k = sum over flat index i of sign(k, i) * gradient[i] (before clipping) of
  step `first_step` + t (attribute of the group, steps counted from 1); sign(k, i) = -1 where
  philox(stream_key(seed, name), i, k)[0] & 1, else +1 (low counter i, high counter k).
/tied                loss, grad_norm, projections and the embedding's gradient with the head tied to the embedding: same
  initial weights, tokens and settings."""

MODEL = dict(vocab_size=41, hidden_size=24, num_layers=2, num_heads=4, num_kv_heads=2, ffn_size=22,
             rope_theta=10000.0, norm_eps=1e-6)
OPTIM = dict(lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1, clip_norm=2.0)
SEED, STEPS, BATCH, SEQ_LEN, NUM_PROJECTIONS = 4, 10, 3, 16, 3
WEIGHT_RANGE, NORM_RANGE = 0.35, 0.2  # uniform in +-0.35 (std 0.2); norms 1 +- 0.2, so that a missing one is noticed

# ------------------------------------------------------------------------------------------------ Philox (rng.hpp)
U64 = (1 << 64) - 1


def mix64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & U64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & U64
    return x ^ (x >> 31)


def stream_key(seed, name):
    fnv = 0xCBF29CE484222325
    for byte in name.encode():
        fnv = (fnv ^ byte) * 0x100000001B3 & U64
    return mix64(fnv ^ mix64(seed + 0x9E3779B97F4A7C15 & U64))


def philox(key, low, high=0):
    """Philox4x32-10 for an array `low` of counters: four uint64 arrays that hold 32-bit words."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    low = np.asarray(low, dtype=np.uint64)
    c0, c1 = low & mask, low >> half
    c2, c3 = np.full_like(low, high & 0xFFFFFFFF), np.full_like(low, high >> 32)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c2 = (p1 >> half) ^ c1 ^ np.uint64(k0), (p0 >> half) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & mask, p0 & mask
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform(key, count):
    """Elements 0 ... count - 1 of the stream, in (0, 1)."""
    words = philox(key, np.arange((count + 1) // 2))
    bits = np.stack([(words[0] << np.uint64(32) | words[1]), (words[2] << np.uint64(32) | words[3])], axis=1)
    return ((bits.reshape(-1)[:count] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def signs(name, k, count):
    return 1.0 - 2.0 * (philox(stream_key(SEED, name), np.arange(count), k)[0] & np.uint64(1)).astype(np.float64)


def check_philox():
    """Known answers of the Random123 distribution (kat_vectors, philox 4x32 10)."""
    assert [int(w) for w in philox(0, 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(w) for w in philox(U64, U64, U64)] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert [int(w) for w in philox(0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E)] == [
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


# ------------------------------------------------------------------------------------------------ model and data
def weight_shapes():
    hidden, ffn, vocab = MODEL["hidden_size"], MODEL["ffn_size"], MODEL["vocab_size"]
    kv = MODEL["num_kv_heads"] * (hidden // MODEL["num_heads"])
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(MODEL["num_layers"]):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        for projection, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            shapes[prefix + f"self_attn.{projection}_proj.weight"] = (rows, hidden)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
        shapes[prefix + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, ffn)
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def initial_weights():
    weights = {}
    for name, shape in weight_shapes().items():
        values = 2.0 * uniform(stream_key(SEED, name), int(np.prod(shape))) - 1.0
        values = 1.0 + NORM_RANGE * values if len(shape) == 1 else WEIGHT_RANGE * values
        weights[name] = values.reshape(shape)
    return weights


def batches():
    """tokens, targets (steps, batch, seq_len) i32: skewed draws, so that there is something to learn; about one target in
    ten is ignored, and in step 3 the whole last sequence."""
    draws = uniform(stream_key(SEED, "tokens"), STEPS * BATCH * (SEQ_LEN + 1)).reshape(STEPS, BATCH, SEQ_LEN + 1)
    ids = np.floor(MODEL["vocab_size"] * draws**2).astype(np.int32)
    tokens, targets = ids[..., :-1].copy(), ids[..., 1:].copy()
    ignored = uniform(stream_key(SEED, "ignored"), targets.size).reshape(targets.shape) < 0.1
    ignored[2, -1] = True
    targets[ignored] = -1
    return tokens, targets


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + MODEL["norm_eps"]) * weight


def rotate(x):
    """RoPE on x (B, T, H, D): element i is paired with i + D/2, angle position * theta^(-2 i / D)."""
    half = x.shape[-1] // 2
    frequency = MODEL["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency)[None, :, None, :]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def forward(weights, tokens, tied):
    """Logits (B, T, V)."""
    heads, kv_heads = MODEL["num_heads"], MODEL["num_kv_heads"]
    size = MODEL["hidden_size"] // heads
    batch, length = tokens.shape
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(MODEL["num_layers"]):
        w = {name: weights[f"model.layers.{layer}.{name}.weight"] for name in (
            "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
        h = rms_norm(x, w["input_layernorm"])
        q = rotate((h @ w["self_attn.q_proj"].T).view(batch, length, heads, size))
        k = rotate((h @ w["self_attn.k_proj"].T).view(batch, length, kv_heads, size))
        v = (h @ w["self_attn.v_proj"].T).view(batch, length, kv_heads, size)
        k, v = (z.repeat_interleave(heads // kv_heads, dim=2) for z in (k, v))  # query head h uses kv head h div group
        score = torch.einsum("bthd,bshd->bhts", q, k) / size**0.5
        probability = score.masked_fill(~mask, -torch.inf).softmax(-1)
        attended = torch.einsum("bhts,bshd->bthd", probability, v).reshape(batch, length, -1)
        x = x + attended @ w["self_attn.o_proj"].T
        h = rms_norm(x, w["post_attention_layernorm"])
        gate = h @ w["mlp.gate_proj"].T
        x = x + (gate * gate.sigmoid() * (h @ w["mlp.up_proj"].T)) @ w["mlp.down_proj"].T
    x = rms_norm(x, weights["model.norm.weight"])
    return x @ weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T


def cross_entropy(logits, targets):
    kept = targets >= 0
    logits = logits[kept]
    return (logits.logsumexp(-1) - logits.gather(-1, targets[kept][:, None])[:, 0]).mean()


def train(tied):
    """Ten steps of AdamW (decoupled decay, Loshchilov & Hutter 2019) with clipping by the global norm."""
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in initial_weights().items()
               if not (tied and name == "lm_head.weight")}
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    tokens, targets = (torch.from_numpy(a).long() for a in batches())
    lr, b1, b2 = OPTIM["lr"], OPTIM["beta1"], OPTIM["beta2"]
    record = dict(loss=[], grad_norm=[], gradients=[])
    for step in range(1, STEPS + 1):
        loss = cross_entropy(forward(weights, tokens[step - 1], tied), targets[step - 1])
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
        norm = sum(g.square().sum() for g in gradients.values()).sqrt()
        clip = min(1.0, OPTIM["clip_norm"] / norm.item())
        record["loss"].append(loss.item())
        record["grad_norm"].append(norm.item())
        record["gradients"].append({name: g.numpy() for name, g in gradients.items()})
        with torch.no_grad():
            for name, w in weights.items():
                m, v = moments[name]
                g = clip * gradients[name]
                m.mul_(b1).add_((1 - b1) * g)
                v.mul_(b2).add_((1 - b2) * g * g)
                direction = (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + OPTIM["eps"])
                w.sub_(lr * (OPTIM["weight_decay"] * w + direction))
    record["weights"] = {name: w.detach().numpy() for name, w in weights.items()}
    return record


# ------------------------------------------------------------------------------------------------ the file
def put(group, name, value):
    group.create_dataset(name, data=value, track_times=False)  # the same bytes whenever it is written


def write_projections(group, record, first_step):
    group.attrs["first_step"] = first_step
    for name in record["gradients"][0]:
        rows = [[float(np.dot(signs(name, k, g.size), g.reshape(-1))) for k in range(NUM_PROJECTIONS)]
                for g in (gradients[name] for gradients in record["gradients"][first_step - 1:])]
        put(group, name, np.array(rows))


def write(path, untied, tied):
    tokens, targets = batches()
    with h5py.File(path, "w", libver=("v110", "v110")) as file:  # so that Debian 12 can read it
        file.attrs.update(MODEL)
        file.attrs.update(OPTIM)
        file.attrs.update(seed=SEED, steps=STEPS, batch=BATCH, seq_len=SEQ_LEN, num_projections=NUM_PROJECTIONS)
        for key, text in (("torch_version", torch.__version__), ("layout", FILE_LAYOUT),
                          ("command", "python tools/make_golden.py")):
            file.attrs[key] = np.bytes_(text)
        put(file, "tokens", tokens)
        put(file, "targets", targets)
        for name, value in initial_weights().items():
            put(file, f"weights/{name}", value)
        for name, value in untied["gradients"][0].items():
            put(file, f"gradients/{name}", value)
        name = "model.embed_tokens.weight"
        put(file, f"tied/gradients/{name}", tied["gradients"][0][name])
        for group, record, first_step in ((file, untied, 2), (file["tied"], tied, 1)):
            put(group, "loss", np.array(record["loss"]))
            put(group, "grad_norm", np.array(record["grad_norm"]))
            write_projections(group.create_group("projections"), record, first_step)


# ------------------------------------------------------------------------------------------------ cross-check
def reference_model(tied):
    """transformers' LLaMA in f64. Its norm and its rotation table compute in f32 for every type of model; both are replaced
    by f64 here (with PyTorch's own rms_norm). The rest is unchanged ("sdpa", because their "eager" softmax is f32 too)."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama import modeling_llama

    def norm(self, x):
        return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)

    def table(self, x, position_ids, *_, **__):
        size = MODEL["hidden_size"] // MODEL["num_heads"]
        inverse = 1.0 / MODEL["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = position_ids[..., None].double() * inverse
        return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

    config = LlamaConfig(
        vocab_size=MODEL["vocab_size"], hidden_size=MODEL["hidden_size"], intermediate_size=MODEL["ffn_size"],
        num_hidden_layers=MODEL["num_layers"], num_attention_heads=MODEL["num_heads"],
        num_key_value_heads=MODEL["num_kv_heads"], rms_norm_eps=MODEL["norm_eps"], hidden_act="silu",
        max_position_embeddings=SEQ_LEN, tie_word_embeddings=tied, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float64)
    model = LlamaForCausalLM(config).double()
    torch.set_default_dtype(torch.float32)
    weights = {name: torch.tensor(w) for name, w in initial_weights().items()}
    if tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True)
    modeling_llama.LlamaRMSNorm.forward = norm
    modeling_llama.LlamaRotaryEmbedding.forward = table
    return model


def check(path):
    """Ten steps of transformers' model under torch.optim.AdamW beside the stored record. Returns the worst difference."""
    import transformers
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {path}")
    worst = 0.0
    file = h5py.File(path, "r")
    for tied in (False, True):
        model = reference_model(tied)
        optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIM["lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]),
                                      eps=OPTIM["eps"], weight_decay=OPTIM["weight_decay"])
        tokens, targets = (torch.from_numpy(file[key][:]).long() for key in ("tokens", "targets"))
        ours = forward({name: torch.tensor(w) for name, w in initial_weights().items()}, tokens[0], tied)
        record = file["tied"] if tied else file
        first_step = record["projections"].attrs["first_step"]
        difference = dict(logits=0.0, loss=0.0, grad_norm=0.0, gradients=0.0, projections=0.0)
        for step in range(STEPS):
            logits = model(tokens[step]).logits
            if step == 0:
                difference["logits"] = (logits - ours).abs().max().item() / ours.abs().max().item()
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, MODEL["vocab_size"]), targets[step].reshape(-1),
                                                     ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
            norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
            difference["loss"] = max(difference["loss"], abs(loss.item() / record["loss"][step] - 1))
            difference["grad_norm"] = max(difference["grad_norm"], abs(norm / record["grad_norm"][step] - 1))
            for name, g in gradients.items():
                if step == 0 and name in record["gradients"]:
                    reference = record["gradients"][name][:]
                    difference["gradients"] = max(difference["gradients"],
                                                  np.abs(g - reference).max() / np.abs(reference).max())
                if step + 1 >= first_step:
                    row = record["projections"][name][step + 1 - first_step]
                    mine = np.array([signs(name, k, g.size) @ g.reshape(-1) for k in range(NUM_PROJECTIONS)])
                    difference["projections"] = max(difference["projections"],
                                                    np.abs(mine - row).max() / np.linalg.norm(g))
            for p in model.parameters():
                p.grad.mul_(min(1.0, OPTIM["clip_norm"] / norm))
            optimizer.step()
        print(f"tied={tied}: " + ", ".join(f"{key} {value:.1e}" for key, value in difference.items()))
        worst = max(worst, *difference.values())
    return worst


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/llama_f64.h5"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=default)
    parser.add_argument("--check", action="store_true", help="compare an existing file with transformers and torch.optim")
    arguments = parser.parse_args()
    check_philox()
    torch.set_num_threads(1)
    if arguments.check:
        worst = check(arguments.output)
        print(f"worst relative difference {worst:.1e}, " + ("ok" if worst < 1e-11 else "too large (limit 1e-11)"))
        return 0 if worst < 1e-11 else 1
    untied, tied = train(tied=False), train(tied=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.output, untied, tied)
    for label, record in (("untied", untied), ("tied", tied)):
        print(label, "loss", *(f"{x:.4f}" for x in record["loss"]), " norm", *(f"{x:.3f}" for x in record["grad_norm"]))
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size} bytes")
    return 0 if size < 200_000 else 1


if __name__ == "__main__":
    sys.exit(main())
