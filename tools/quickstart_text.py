#!/usr/bin/env python3
"""Turns the dictionary of Debian's package dict-gcide into plain text, one entry a paragraph: "Word: what it means."

Pronunciations, etymologies, quotations and field labels go; what stays is ASCII English prose.
"""
import argparse
import gzip
import re
import sys

ACCENT = re.compile(r"\[[\"'`^=~,.]+([A-Za-z]{1,2})\]")  # ent['e]rologie
BRACKETS = re.compile(r"\[[^\[\]]*\]")
LABEL = re.compile(r"\((?:[A-Z][a-z]*\.?[ ,&]*)+\.\)")  # (Med.), (Nat. Hist.)
NUMBERING = re.compile(r"^(?:\d+\. *)?(?:\([a-z]\) *)?")
SOURCE = re.compile(r"\s--\s?[A-Z(\[].*$")  # "as, a manly enterprise. --Shak."


def entries(lines):
    """Yields the lines of one entry at a time: a headword with its \\pronunciation\\ starts at the margin."""
    entry = []
    for line in lines:
        if not line.startswith(" ") and line.count("\\") >= 2:
            if entry:
                yield entry
            entry = [line]
        elif entry:
            entry.append(line)
    if entry:
        yield entry


def definition(paragraph):
    """One paragraph of an entry as a sentence or two, or "" if it is a quotation, a list of synonyms or a fragment."""
    lines = paragraph.split("\n")
    if len(lines[0]) - len(lines[0].lstrip()) > 7:  # quotations are set in
        return ""
    text = " ".join(" ".join(lines).split())
    if text.startswith(("Syn:", "Note:", "See ", "Same as")):
        return ""
    text = LABEL.sub("", NUMBERING.sub("", text))
    text = SOURCE.sub("", text).replace("{", "").replace("}", "").strip(" ;:,")
    text = re.sub(r"\s+([.,;:])", r"\1", " ".join(text.split()))
    if len(text) < 20 or not text[0].isalpha() or not text.endswith((".", "!", "?")):
        return ""
    return text[0].upper() + text[1:]


def plain(entry):
    """ "Word: Meaning. Another meaning." or "" if nothing readable is left."""
    word = entry[0].split("\\")[0].strip()
    text = ACCENT.sub(r"\1", "\n".join(entry))
    while BRACKETS.search(text):
        text = BRACKETS.sub("", text)
    body = text.partition("\n")[2]
    meanings = [d for d in map(definition, re.split(r"\n\s*\n", body.strip("\n"))) if d]
    result = f"{word}: {' '.join(meanings)}"
    usable = meanings and len(result) <= 800 and result.isascii() and re.fullmatch(r"[A-Za-z][A-Za-z' -]*", word)
    return result if usable and not re.search(r'["\[\]\\<>?]', result) else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dictionary", help="gcide.dict.dz")
    parser.add_argument("output", help="text file to write")
    parser.add_argument("--megabytes", type=float, default=4, help="take every k-th entry so that about this much is left")
    arguments = parser.parse_args()
    with gzip.open(arguments.dictionary, "rt", encoding="utf-8", errors="replace") as source:
        texts = [t for t in map(plain, entries(source.read().split("\n"))) if t]
    if len(texts) < 10000:
        sys.exit(f"only {len(texts)} entries found in {arguments.dictionary} (its format differs from what is expected)")
    texts = texts[:: max(1, round(sum(map(len, texts)) / (arguments.megabytes * 1e6)))]
    with open(arguments.output, "w", encoding="ascii") as output:
        output.write("\n\n".join(texts) + "\n")
    print(f"{len(texts)} entries, {sum(map(len, texts)) / 1e6:.1f} MB of plain text")


if __name__ == "__main__":
    main()
