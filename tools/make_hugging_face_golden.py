#!/usr/bin/env python3
"""Writes tests/golden/hugging_face: what transformers and SentencePiece compute, for tests that need neither.

llama/               a small LLaMA with a begin token, saved by transformers; its tokenizer by SentencePiece's trainer
expected.json        ids and losses of one text by transformers, with rope_theta inside rope_scaling too; ids of awkward texts by
                     transformers from the tokenizer.json that `export` writes, with that file's fingerprint; versions
NAME.model.xz        SentencePiece models of several kinds

  tools/torch_venv.sh --with-transformers; .venv-torch/bin/python tools/make_hugging_face_golden.py --build=build/release

If the exported tokenizer.json changes, tests fail until this script has run transformers on the new one.
"""
import json
import lzma
import pathlib
import random
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
import hugging_face_golden as golden  # noqa: E402  (takes --build off the command line)
import sentencepiece  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from program import BUILD  # noqa: E402

SEQ_LEN, VOCABULARY = 32, 400
WORDS = """lantern river stone quiet ember harbour willow drift signal copper thread the a of naïve café élan Å ① ＡＢ ﬁ
    東京 日本語 テスト 한국어 텍스트 1907 <s> < > / \\ 0x41 ( ) : = def return""".split()
BYTE_PAIR = dict(model_type="bpe", vocab_size=VOCABULARY, byte_fallback=True)
KINDS = {
    # like those of `switchyard tokenize` and of LLaMA
    "identity": dict(BYTE_PAIR, normalization_rule_name="identity", remove_extra_whitespaces=False,
                     allow_whitespace_only_pieces=True, split_digits=True, character_coverage=0.9995),
    "no_prefix": dict(BYTE_PAIR, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False),
    # like those of OpenLLaMA and T5
    "nfkc": dict(BYTE_PAIR, normalization_rule_name="nmt_nfkc"),
    "unigram": dict(model_type="unigram", vocab_size=130, normalization_rule_name="nmt_nfkc", hard_vocab_limit=False),
}  # fmt: skip


def lines(seed, count):
    draw = random.Random(seed)
    return ["  ".join(" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(draw.randint(1, 3))) for _ in range(count)]


def train(folder, kind):
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines(1, 400)), model_prefix=str(folder / "trained"),
                                             minloglevel=2, num_threads=1, **kind)  # fmt: skip
    return (folder / "trained.model").read_bytes()


def make_model(folder, tokenizer):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=SEQ_LEN, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3)  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer)
    rule = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(rule, indent=2) + "\n")


def loss_of(folder, ids):
    """Mean over all tokens but the first, in windows of SEQ_LEN as `eval` takes them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for start in range(0, len(ids) - 1, SEQ_LEN):
        window = torch.tensor(ids[start : start + SEQ_LEN + 1])
        with torch.no_grad():
            logits = model(window[None, :-1]).logits[0].double()
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / (len(ids) - 1)


def nested(folder, target):
    """The same weights, rope_theta = 500000 inside rope_scaling alone."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    del config["rope_parameters"]
    config["rope_scaling"] = {"rope_type": "default", "rope_theta": 500000.0}
    (target / "config.json").write_text(json.dumps(config))
    return target


def main():
    shutil.rmtree(golden.GOLDEN, ignore_errors=True)
    golden.MODEL.mkdir(parents=True)
    expected = {"versions": {m.__name__: m.__version__ for m in (transformers, sentencepiece)} | {"torch": torch.__version__}}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for kind, options in KINDS.items():
            (golden.GOLDEN / f"{kind}.model.xz").write_bytes(lzma.compress(train(folder, options), preset=9))
        make_model(golden.MODEL, golden.tokenizers()["identity"])
        text = "\n".join(lines(2, 6)).replace("<s>", "s")  # text here, a token for LlamaTokenizer
        tokenizer = transformers.AutoTokenizer.from_pretrained(golden.MODEL)
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert ids[0] == 1 and ids[-1] == 2
        expected["llama"] = {"text": text, "ids": ids, "loss": loss_of(golden.MODEL, ids), "seq_len": SEQ_LEN,
                             "nested_loss": loss_of(nested(golden.MODEL, folder / "nested"), ids),
                             "loss_without_begin": loss_of(golden.MODEL, ids[1:])}  # fmt: skip
        for kind, model in golden.tokenizers().items():
            place = folder / kind
            place.mkdir()
            exported, _ = golden.export_with(BUILD, place, model)
            loaded = transformers.AutoTokenizer.from_pretrained(exported)
            theirs = [loaded(text)["input_ids"] for text in golden.TEXTS]
            assert all(i[0] == 1 for i in theirs)
            expected[kind] = {"fingerprint": golden.fingerprint(exported / "tokenizer.json"), "ids": [i[1:] for i in theirs]}
            spm = sentencepiece.SentencePieceProcessor(model_proto=model)
            for text, found in zip(golden.TEXTS, theirs):
                if spm.encode(text) != found[1:]:
                    print(f"{kind}: {text[:40]!a} differs from SentencePiece", file=sys.stderr)
    (golden.GOLDEN / "expected.json").write_text(json.dumps(expected, separators=(",", ":"), ensure_ascii=True) + "\n")


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    main()
