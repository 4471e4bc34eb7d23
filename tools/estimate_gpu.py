#!/usr/bin/env python3
"""Estimates a step on an H100 from bytes and operations: prints the tables of docs/performance.md.

A kernel takes as long as its bytes at a fraction of the memory's rate, or its operations at a fraction of the peak, whichever
is longer; a step is the sum, plus a gap for each launch. Nothing here was measured: where a measurement contradicts a
fraction, change the fraction. --check fails if the page does not have these tables.
"""
import argparse
import pathlib
import sys

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs/performance.md"

# H100 SXM by its data sheet, and what is assumed to be reached of it.
BYTES_PER_S, FLOPS = 3.35e12, 989e12
STREAM, REDUCE = 0.80, 0.75  # long accesses alone; with sums over rows or columns
PRODUCT = {768: 0.53, 1024: 0.60, 2048: 0.65}  # by the smaller side of the weight; between them by the next smaller one
THIN_PRODUCT = 0.35  # a side below 768
ATTENTION = {512: (150e12, 110e12), 2048: (230e12, 170e12)}  # forward, backward
MERGE = 0.30
LAUNCH_GAP_S, HOST_LAUNCH_S = 1e-6, 2.5e-6

# hidden, feed-forward (as padded), layers, heads
PRESETS = {"130m": (768, 2048, 12, 12), "350m": (1024, 2736, 24, 16), "1b": (2048, 5472, 24, 32)}
VOCABULARY, TOKENS = 32100, 16384  # of a micro-batch, which is the whole step
LOGITS_CHUNK = (256 << 20) // (2 * VOCABULARY) // 64 * 64  # tokens


def memory(bytes_, fraction=STREAM):
    return bytes_ / (fraction * BYTES_PER_S)


def product(m, n, k, out_bytes=2, accumulate=False):
    """c (m, n) = a (m, k) b (k, n) in bf16."""
    side = min(m, n, k)
    fraction = max((f for width, f in PRODUCT.items() if width <= side), default=THIN_PRODUCT)
    moved = 2 * (m * k + k * n) + out_bytes * m * n * (2 if accumulate else 1)
    return max(2 * m * n * k / (fraction * FLOPS), memory(moved))


def linears(preset):
    """[(out, in)] of a block: q, k, v, o, gate, up, down."""
    c, f, _, _ = PRESETS[preset]
    return [(c, c)] * 4 + [(f, c)] * 2 + [(c, f)]


def dense_products(preset):
    """Forward, the input's gradient and the weight's, which is accumulated in f32."""
    return sum(product(TOKENS, m, n) + product(TOKENS, n, m) + product(m, n, TOKENS, 4, True) for m, n in linears(preset))


def low_rank_products(preset, r):
    """Forward and the input's gradient with the merged weights; d_y B' and d_B of each; x A' and d_A of all that read one x."""
    c, f, _, _ = PRESETS[preset]
    time = 0
    for outputs, n in (([c, c, c], c), ([c], c), ([f, f], c), ([c], f)):
        slots = len(outputs) * r
        time += product(slots, TOKENS, n) + product(slots, n, TOKENS, 4, True)
        time += sum(product(TOKENS, m, n) + product(TOKENS, n, m) + product(r, TOKENS, m) + product(r, m, TOKENS, 4, True) for m in outputs)
    return time


def attention(preset, length):
    """(forward, backward) of one block. A query sees (length + 1) / 2 keys on average."""
    c = PRESETS[preset][0]
    pairs = TOKENS * (length + 1) / 2  # of one head; D heads' sizes add up to c
    forward, backward = ATTENTION[length]
    return 4 * c * pairs / forward, (6 + 8) * c * pairs / backward


def rest_of_block(preset):
    """Two norms with additions and their gradients, rope of q, k and their gradients, SwiGLU twice and its gradient."""
    c, f, _, _ = PRESETS[preset]
    return memory((2 * 8 + 2 * 8) * c * TOKENS, REDUCE) + memory((4 * 4 * c + (6 + 6 + 10) * f) * TOKENS)


def vocabulary(preset):
    """Logits, loss and their gradients, chunk by chunk; embedding."""
    c, time = PRESETS[preset][0], 0
    for first in range(0, TOKENS, LOGITS_CHUNK):
        n = min(LOGITS_CHUNK, TOKENS - first)
        time += product(VOCABULARY, n, c) + product(n, c, VOCABULARY) + product(VOCABULARY, c, n, 4, True)
        time += memory((2 + 4) * VOCABULARY * n, REDUCE)
    return time + memory((4 + 2 + 8) * c * TOKENS, REDUCE) + token_search()


def token_search():
    """Every token's block reads the list of tokens, from the L2 cache (5.5 TB/s), until it finds its own token."""
    return 4 * TOKENS**2 / (REDUCE * 5.5e12)


def trained_values(preset, r):
    c, _, layers, _ = PRESETS[preset]
    of_block = sum(m * n if r is None else r * (m + n) for m, n in linears(preset)) + 2 * c
    return layers * of_block + 2 * VOCABULARY * c + c


def optimizer(preset, r):
    """Gradients are zeroed and squared, then the update."""
    return memory(4 * trained_values(preset, r)) + memory(4 * trained_values(preset, r), REDUCE) + memory(30 * trained_values(preset, r))


def switching(preset, r):
    """(merge, absorption of the vectors that switch)"""
    weights = PRESETS[preset][2] * sum(m * n for m, n in linears(preset))
    merge = max(memory(6 * weights), 2 * r * weights / (MERGE * FLOPS))
    return merge, memory(8 * weights)


# Of a step with one chunk of logits, by layers: counted by SWITCHYARD_COUNT_CALLS=1 in emulated runs in bf16 of models with
# that many layers, where every matrix switches in every step. A further chunk has 8: three products and the loss.
LAUNCHES = {"full": {12: 468, 24: 913}, "switchlora": {12: 843, 24: 1647}}
LAUNCHES_OF_CHUNK = 8


def launches(preset, method):
    return LAUNCHES[method][PRESETS[preset][2]] + LAUNCHES_OF_CHUNK * (-(-TOKENS // LOGITS_CHUNK) - 1)


def dense_flops_per_token(preset, length):
    """What `mfu` of a run counts: 6 a weight and 12 C T a layer, without a mask."""
    c, _, layers, _ = PRESETS[preset]
    return 6 * (layers * sum(m * n for m, n in linears(preset)) + VOCABULARY * c) + 12 * layers * c * length


def step(preset, length, method):
    c, _, layers, _ = PRESETS[preset]
    r = None if method == "full" else c // 4
    forward, backward = attention(preset, length)
    parts = {
        "products": layers * (dense_products(preset) if r is None else low_rank_products(preset, r)),
        "attention": layers * (forward + backward),
        "rest of blocks": layers * rest_of_block(preset),
        "vocabulary": vocabulary(preset),
        "optimizer": optimizer(preset, r),
        "merge and switch": 0 if r is None else sum(switching(preset, r)),
    }
    device = sum(parts.values()) + launches(preset, method) * LAUNCH_GAP_S
    return parts, max(device, launches(preset, method) * HOST_LAUNCH_S)


def step_table():
    yield "| model | length | method | products | attention | rest of blocks | vocabulary | optimizer | merge, switch | launches | ms a step | tokens/s | MFU | measured |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for preset in PRESETS:
        for length in ATTENTION:
            for method in LAUNCHES:
                parts, total = step(preset, length, method)
                mfu = dense_flops_per_token(preset, length) * TOKENS / total / FLOPS
                times = " | ".join(f"{1e3 * part:.1f}" for part in parts.values())
                yield (f"| {preset} | {length} | `{method}` | {times} | {launches(preset, method)} | {1e3 * total:.1f} | {TOKENS / total:,.0f} | "
                       f"{mfu:.2f} | not run |")  # fmt: skip


def kernel_table():
    """One call at the sizes of 130m: n = 16,384 tokens of sequences of T = 2048, a chunk of logits, all parameters, a layer's weights.

    Registers are those of bf16 (heads of 64) for sm_90, from tests/check_kernels.py --list.
    """
    c, f, _, _ = PRESETS["130m"]
    r, x, logits = c // 4, c * TOKENS, VOCABULARY * LOGITS_CHUNK
    values, weights = trained_values("130m", None), sum(m * n for m, n in linears("130m"))
    forward, backward = attention("130m", 2048)
    yield "| kernel | registers | per | bytes | operations | one call for 130m | estimate, us | measured |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, registers, per, bytes_, operations, size, time in (
        ("`rms_norm_forward`", "63", "element", "4", "4", "n C", memory(4 * x, REDUCE)),
        ("`add_rms_norm_forward`", "63", "element", "8", "5", "n C", memory(8 * x, REDUCE)),
        ("`rms_norm_backward`", "64", "element", "8", "10", "n C", memory(8 * x, REDUCE)),
        ("`rope`", "40", "element", "4", "3", "n C", memory(4 * x)),
        ("`swiglu_forward`", "30", "element", "6", "5, exp, division", "n F", memory(6 * f * TOKENS)),
        ("`swiglu_backward`", "42", "element", "10", "12, exp, division", "n F", memory(10 * f * TOKENS)),
        ("`attention_forward`", "209", "visible pair", "8 an element of q", "4 D, exp", "n T / 2 pairs, 12 heads", forward),
        ("`attention_backward`, d_q", "235", "visible pair", "12 an element of q", "6 D, exp", "the same", backward * 6 / 14),
        ("`attention_backward`, d_k and d_v", "172", "visible pair", "12 an element of q", "8 D, exp", "the same", backward * 8 / 14),
        ("`embedding_forward`", "26", "element", "4", "0", "n C", memory(4 * x, REDUCE)),
        ("`embedding_backward`", "64", "element", "2, and 8 of each row met; 4 n a token from L2", "1", "n C", memory(10 * x, REDUCE) + token_search()),
        ("`softmax_statistics`", "113", "logit", "2", "4, exp", "V chunk", memory(2 * logits, REDUCE)),
        ("`combine_statistics`", "32", "token", "36", "2 exp, log in f64", "chunk", memory(36 * LOGITS_CHUNK) + 2 * LAUNCH_GAP_S),
        ("`cross_entropy_backward`", "108", "logit", "4", "3, exp", "V chunk", memory(4 * logits, REDUCE)),
        ("`zero` of gradients", "20", "value", "4", "0", "all parameters", memory(4 * values)),
        ("`squared_norms`", "32", "value", "4", "2 in f64", "all parameters", memory(4 * values, REDUCE)),
        ("`adamw`", "72", "value", "30", "15, root, division", "all parameters", memory(30 * values)),
        ("`merge`", "118", "weight", "6, and r / 32 from L2", "2 r", "a layer", max(memory(6 * weights), 2 * r * weights / (MERGE * FLOPS))),
        ("`add_low_rank`", "128", "weight", "8", "4 a switched slot", "a layer", memory(8 * weights)),
        ("`store_frozen`, `load_frozen`", "30, 32", "weight", "8", "2", "a layer", memory(8 * weights)),
        ("`run_rows`, `copy`, `transpose`", "40, 24, 40", "element", "both sides", "0", "n C in bf16", memory(4 * x)),
        ("`add`", "28", "element", "from and twice to", "2", "n C in bf16", memory(6 * x)),
        ("`sum_parts`, sums of P ranks", "47, 40", "element", "4 (P + 1)", "P", "all parameters, P = 4", memory(20 * values)),
        ("`matmul`", "cuBLASLt", "", "2 (m k + k n) + c", "2 m n k", "n x C x C", product(TOKENS, c, c)),
    ):
        yield f"| {name} | {registers} | {per} | {bytes_} | {operations} | {size} | {1e6 * time:,.0f} | not run |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    lines = [*kernel_table(), *step_table()]
    if not parser.parse_args().check:
        print("\n".join(lines))
        return 0
    page = PAGE.read_text(encoding="utf-8").splitlines()
    missing = [line for line in lines if line not in page]
    print("\n".join(f"docs/performance.md lacks: {line}" for line in missing) or "the tables of docs/performance.md are these")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
