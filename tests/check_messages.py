#!/usr/bin/env python3
"""Keeps messages readable: *problem (why it matters); what to do*, in the field's words.

Reads every text literal of the sources, tools and job scripts; prints file:line and what is wrong, and exits 1.
--self-test plants one message of each fault and fails unless exactly that rule reports it.
"""
import argparse
import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ["src/**/*.[ch]pp", "io/**/*.[ch]pp", "cuda/**/*.[ch]*", "tools/*.py", "tools/*.sh", "jobs/**/*.sh", "jobs/**/*.sbatch"]

# Turns of phrase that messages may not use, and what to write instead.
TURNS = [
    (r"(?<!there )\b(?:is|are|was|were|be) no (?!longer\b|more\b)[a-z]", 'write "is not a ..."'),
    (r"\bget (?:it|them|both|the files?) again\b", 'write "download it again"'),
    (r"\banother [\w' -]*\bthan\b", 'write "a different ... from"'),
    (r"\bother [\w' -]+\bthan that of\b", 'write "different ... from those of"'),
    (r"\bbehind\b", 'write "after"'),
    (r"\bso many\b", 'write "that many"'),
    (r"\bis wanted\b|\bare wanted\b", 'write "is expected"'),
    (r"\ba text\b(?! (?:file|field|editor|line))", 'write "text"'),
    (r"\bturned\b", 'write "transposed"'),
    (r"\bhappenings?\b", 'write "event"'),
]
TURNS = [(re.compile(pattern), advice) for pattern, advice in TURNS]

# Calls whose texts are messages to a user.
MESSAGE_CALL = re.compile(r"\b(?:require|fail|UserError|AgreedError|warn|complain)(?:<[\w:]*>)?\s*\(")
CPP_TOKEN = re.compile(r"""//[^\n]*|R"(\w*)\((?P<raw>.*?)\)\1"|"(?P<text>(?:[^"\\\n]|\\.)*)"|'(?:[^'\\\n]|\\.)+'""", re.S)
SHELL_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def unbracketed(text):
    """The position after each outermost (...) that follows a space."""
    depth, opened = 0, False
    for i, c in enumerate(text):
        if c == "(":
            if depth == 0:
                opened = i > 0 and text[i - 1] == " "
            depth += 1
        elif c == ")" and depth > 0:
            depth -= 1
            if depth == 0 and opened:
                yield i + 1


def reason_problem(text):
    """A reason in brackets ends a sentence: what to do comes after a semicolon."""
    ends = list(unbracketed(text))
    if ends and re.match(r" [a-z`\-]", text[ends[-1]:]):
        return f'no semicolon between the reason in brackets and "{text[ends[-1]:].strip()[:30]}..."'
    return None


def turn_problems(text):
    for pattern, advice in TURNS:
        found = pattern.search(text)
        if found:
            yield f'"{found.group()}": {advice}'


def cpp_texts(source):
    """(line, text, is a message) of every run of adjacent literals; a message is an argument of a call that throws."""
    messages = []
    for call in MESSAGE_CALL.finditer(source):
        depth, i = 1, call.end()
        while depth and i < len(source):
            token = CPP_TOKEN.match(source, i)
            if token:
                i = token.end()
                continue
            depth += {"(": 1, ")": -1}.get(source[i], 0)
            i += 1
        messages.append((call.end(), i))
    run, begin, end = "", 0, -1
    for token in CPP_TOKEN.finditer(source):
        text = token.group("text") if token.group("text") is not None else token.group("raw")
        if text is None:
            continue
        if end < 0 or source[end:token.start()].strip():
            if run:
                yield source.count("\n", 0, begin) + 1, run, any(a <= begin < b for a, b in messages)
            run, begin = "", token.start()
        run, end = run + text, token.end()
    if run:
        yield source.count("\n", 0, begin) + 1, run, any(a <= begin < b for a, b in messages)


def advice_problem(text):
    """`system_problem`, which ends a message after a space, brings its own advice."""
    if text.startswith("cannot ") and ";" not in text and not re.search(r"[^:] \{\}$", text):
        return f'"{text}" does not say what to do: use system_problem, or add "; what to do"'
    return None


def python_texts(source):
    tree = ast.parse(source)
    raised = {id(part) for node in ast.walk(tree) if isinstance(node, (ast.Raise, ast.Call)) and is_complaint(node)
              for part in ast.walk(node)}
    inside = set()  # parts of an f-string, which are read together with it
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in ast.walk(node) if part is not node)
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, text, id(node) in raised
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value, id(node) in raised


def is_complaint(node):
    if isinstance(node, ast.Raise):
        return True
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return name in ("fail", "error", "exit", "Failure") or name.endswith("Error")


def shell_texts(source):
    for found in SHELL_TEXT.finditer(source):
        before = source[source.rfind("\n", 0, found.start()) + 1:found.start()]
        if not before.lstrip().startswith("#"):
            yield source.count("\n", 0, found.start()) + 1, found.group(1), bool(re.search(r"\b(?:die|fail|warn)\s+$", before))


READERS = {".cpp": cpp_texts, ".hpp": cpp_texts, ".cu": cpp_texts, ".py": python_texts}


def problems(root):
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            reader = READERS.get(path.suffix, shell_texts)
            for line, text, is_message in reader(path.read_text(encoding="utf-8")):
                found = list(turn_problems(text))
                if is_message:
                    found += filter(None, [reason_problem(text) or advice_problem(text)])
                for problem in found:
                    yield f"{path.relative_to(root)}:{line}: {problem}"


PLANTED = [
    ("src/a.cpp", 'require(ok, "cannot open {} ({}) "\n "check the path", f);', "no semicolon"),
    ("src/a.cpp", 'fail("{} is no size", x);', "is not a"),
    ("src/a.cpp", 'require(ok, "cannot open `{}`: {}", f, system_reason);', "does not say what to do"),
    ("src/a.cpp", 'Option{"n", "N", "draw from so many tokens"};', "that many"),
    ("tools/a.py", 'raise StudyError(f"{x} is odd (it must divide) change it")', "no semicolon"),
    ("tools/a.py", 'print("get it again")', "download it again"),
    ("jobs/a.sh", 'die "$f: no site (it names the queue) give one"', "no semicolon"),
]
HARMLESS = [
    ("src/a.cpp", 'require(ok, "step {} ({}) is late (why); wait", s); // is no comment of ours\nconst char c = \'"\';'),
    ("src/a.cpp", 'fail("there is no `{}` (it is read first); check the path", f);'),
    ("src/a.cpp", 'require(ok, "cannot open `{}` {}", f, system_problem);'),
    ("tools/a.py", 'raise StudyError("x is odd (why); change it")'),
]


def self_test():
    import tempfile
    for name, content, expected in PLANTED + [(name, content, None) for name, content in HARMLESS]:
        with tempfile.TemporaryDirectory() as root:
            path = pathlib.Path(root) / name
            path.parent.mkdir(parents=True)
            path.write_text(content)
            found = list(problems(pathlib.Path(root)))
            if expected is None and found or expected is not None and not (len(found) == 1 and expected in found[0]):
                sys.exit(f"self-test: {content!r} gave {found}, expected {expected or 'nothing'}")
    print(f"{len(PLANTED)} planted messages were found, {len(HARMLESS)} good ones passed")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true")
    if parser.parse_args().self_test:
        return self_test()
    found = list(problems(ROOT))
    print("\n".join(found) or "Every message reads well.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
