#!/usr/bin/env python3
"""Times the training step of a LLaMA in PyTorch on CPUs or a GPU: what Switchyard's own step is compared with (bench_step.py).

torch.compile, scaled_dot_product_attention, fused AdamW, clipping by global norm. Prints one JSON object with
tokens_per_s (of the median step) and the times step_s of the measured steps; compilation and warm-up are not among them.

  .venv-torch/bin/python tools/bench_torch.py --dtype=bf16 --threads=2       (environment: tools/torch_venv.sh)

--dtype  f32            everything in f32 (matrix products too, whatever the processor could do)
         bf16           parameters, gradients and moments in bf16: the fastest, though small updates are lost to rounding
         bf16-autocast  f32 parameters and moments, products in bf16 under autocast: the usual mixed precision
"""
import argparse
import json
import math
import os
import statistics
import sys
import time


class Sizes:
    """One of the presets; vocabulary as the T5 tokenizer's, head not tied."""
    hidden, ffn, layers, heads, vocab = 512, 1376, 8, 8, 32100
    theta, eps = 10000.0, 1e-6


PRESETS = {  # hidden, feed-forward, layers, heads, as in src/config/presets.cpp
    "60m": (512, 1376, 8, 8), "130m": (768, 2048, 12, 12), "350m": (1024, 2736, 24, 16), "1b": (2048, 5461, 24, 32)}


def build(torch, sizes, seq_len):
    """The model as a module: tokens, targets (B, T) -> mean cross-entropy in f32."""
    nn, F = torch.nn, torch.nn.functional
    head_size = sizes.hidden // sizes.heads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.input_norm = nn.RMSNorm(sizes.hidden, eps=sizes.eps)
            self.q, self.k, self.v, self.o = (nn.Linear(sizes.hidden, sizes.hidden, bias=False) for _ in range(4))
            self.mlp_norm = nn.RMSNorm(sizes.hidden, eps=sizes.eps)
            self.gate = nn.Linear(sizes.hidden, sizes.ffn, bias=False)
            self.up = nn.Linear(sizes.hidden, sizes.ffn, bias=False)
            self.down = nn.Linear(sizes.ffn, sizes.hidden, bias=False)

        def forward(self, x, cos, sin):
            batch, length, _ = x.shape
            h = self.input_norm(x)
            q, k, v = (p(h).view(batch, length, sizes.heads, head_size).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).reshape(batch, length, sizes.hidden))
            h = self.mlp_norm(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def rotate(x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(sizes.vocab, sizes.hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(sizes.layers))
            self.norm = nn.RMSNorm(sizes.hidden, eps=sizes.eps)
            self.head = nn.Linear(sizes.hidden, sizes.vocab, bias=False)
            frequency = sizes.theta ** (-torch.arange(0, head_size, 2) / head_size)
            angle = torch.arange(seq_len)[:, None] * frequency
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens, targets):
            x = self.embed(tokens)
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return Model()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("f32", "bf16", "bf16-autocast"), default="f32")
    parser.add_argument("--preset", choices=PRESETS, default="60m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=4, help="sequences per step")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=Sizes.vocab)
    parser.add_argument("--warmup", type=int, default=2, help="steps before the measured ones, compilation included")
    parser.add_argument("--steps", type=int, default=6, help="measured steps")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    if min(arguments.threads, arguments.batch, arguments.seq_len, arguments.steps, arguments.warmup) < 1:
        parser.error("--threads, --batch, --seq-len, --steps and --warmup must be at least 1")

    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before libgomp starts
    import torch
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    Sizes.vocab = arguments.vocab
    Sizes.hidden, Sizes.ffn, Sizes.layers, Sizes.heads = PRESETS[arguments.preset]
    device = torch.device(arguments.device)

    model = build(torch, Sizes, arguments.seq_len).to(device)
    if arguments.dtype == "bf16":
        model = model.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    forward = model if arguments.no_compile else torch.compile(model)
    ids = torch.randint(0, Sizes.vocab, (arguments.batch, arguments.seq_len + 1)).to(device)
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step():
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.dtype == "bf16-autocast"):
            loss = forward(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if arguments.device == "cuda":
            torch.cuda.synchronize()  # the update too is part of the step
        return value

    losses, step_s = [], []
    for i in range(arguments.warmup + arguments.steps):
        begin = time.perf_counter()
        losses.append(step())
        if i >= arguments.warmup:
            step_s.append(time.perf_counter() - begin)

    # The same batch every step: a step that trains starts at about ln(vocab) and goes down.
    valid = abs(losses[0] - math.log(Sizes.vocab)) < 0.5 and losses[-1] < losses[0]
    num_tokens = arguments.batch * arguments.seq_len
    print(json.dumps(dict(
        program="pytorch", version=torch.__version__, dtype=arguments.dtype, threads=arguments.threads,
        compiled=not arguments.no_compile, parameters=sum(p.numel() for p in model.parameters()), tokens_per_step=num_tokens,
        tokens_per_s=num_tokens / statistics.median(step_s), step_s=step_s, loss=losses, valid=valid)))
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
