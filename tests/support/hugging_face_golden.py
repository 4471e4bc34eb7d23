"""tests/golden/hugging_face: a model that transformers made, SentencePiece models, awkward texts; and what the program makes of them.

tools/make_hugging_face_golden.py and the tests share this code, so that both use the same files.
"""
import hashlib
import json
import lzma
import pathlib
import shutil
import subprocess

import h5py
import numpy as np

from program import ENVIRONMENT

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "hugging_face"
MODEL = GOLDEN / "llama"
TEXTS = ["", " ", "  ", "   ", "a", " a", "  a", "a ", "a  ", "a  b", "a   b    c", "\n", "\n\n", "a\nb", " \n ", "\t", "a\tb", "\t\ta", "\r\n",
         "a\r\nb\rc", "Hello, World!", "don't  stop", "東京タワー", "日本語のテキスト。", "한국어 텍스트", "\u1112\u1161\u11ab\u1100\u1173\u11af", "ㄱㅏㄴㅋㅋ", "😀😃",
         "👨\u200d👩\u200d👧", "🇩🇪🇫🇷", "👍🏽", "cafe\u0301", "café", "n\u0303o", "x\u0302", "a\u0301\u0323", "Ａ\u0301", "ﬁ\u0301", "ẛ\u0323", "ＡＢＣ　１２３", "ﬂuﬃcient ﬁsh",
         "①②½Ⅳ㍿", "ｶﾞｷﾞ", "\u00a0a\u00a0b", "a\u3000\u3000b", "\u200b", "a\u200bb", "\ufeffa", "\u0001", "a\u0001b\u007f", "a\u0000b", "a\u0085b\u2028c",
         "<s>", "</s>", "<s>hello</s>", "a <unk> b", "<pad><0x41>", "<0x0A>x", "▁", "a▁b", " ▁ ", "a" * 3000, "naïve" * 200, "1234567890 3.14159",
         "\U0001d54f\U0001d550", "ﷺ", "İıßẞ", "שָׁלוֹם", "السَّلَام", "नमस्ते", "\U00020000\ufffd", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘", "def f(x):\n    return x\n", "´a ¨ ¯",
         "  both  ends  "]  # fmt: skip


def tokenizers():
    """{name: bytes of a SentencePiece model}"""
    return {path.name.removesuffix(".model.xz"): lzma.decompress(path.read_bytes()) for path in sorted(GOLDEN.glob("*.model.xz"))}


def command(build, folder, *words):
    result = subprocess.run([build / "switchyard", *map(str, words)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode:
        raise AssertionError(f"switchyard {' '.join(map(str, words))}: {result.stdout}{result.stderr}")
    return result.stdout


def run_ids(build, folder, texts, tokenizer, name="ids"):
    """The ids of each text as a document of its own, without begin and end token; None for a text without a document."""
    full = [text for text in texts if text.strip(" \t\r\n")]  # a blank text is no document
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in full))
    command(build, folder, "tokenize", f"{name}.jsonl", f"--output={name}.h5", f"--tokenizer={tokenizer}", "--validation=0", "--quiet")
    with h5py.File(folder / f"{name}.h5") as file:
        tokens, end, begin = file["training/tokens"][:].astype(int), int(file.attrs["end_token"]), int(file.attrs["begin_token"])
    documents = np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]
    assert len(documents) == len(full), f"{len(documents)} documents of {len(full)} texts"
    found = iter([[int(i) for i in document[:-1] if i != begin] for document in documents])
    return [next(found) if text.strip(" \t\r\n") else None for text in texts]


def export_with(build, folder, model, begins=True):
    """Directory that `export` writes for the golden model with this tokenizer; also what it printed."""
    source = folder / "source"
    shutil.copytree(MODEL, source)
    (source / "tokenizer.model").write_bytes(model)
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "add_bos_token": begins}))
    (folder / "text.txt").write_text("a b\n\nc d\n")
    command(build, folder, "tokenize", "text.txt", "--output=tokens.h5", "--tokenizer=source", "--quiet")
    command(build, folder, "import", "source", "--output=model.h5", "--data.tokens=tokens.h5")
    printed = command(build, folder, "export", "model.h5", "exported")
    return folder / "exported", printed


def fingerprint(path):
    """The fingerprint of a JSON file's content."""
    return hashlib.sha256(json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True).encode()).hexdigest()
