#!/usr/bin/python3
"""Writes a program that takes the address of every function which a back end must define.

    every_declaration.py HEADER... --output=FILE.cpp [--include-root=DIR]

A function that is declared and not defined then fails to link, whether something calls it or not. Reads free functions,
member functions, constructors and destructors in the headers' namespaces; functions with a body and templates are
defined already. --self-test: judges a header with one of each kind.
"""
import argparse
import pathlib
import re
import sys

OPENING, CLOSING = "([{", ")]}"
NO_FUNCTION = re.compile(r"^(using|typedef|static_assert|friend|extern|enum|template)\b|^(struct|class)\s+\w+$|=\s*(default|delete)$")
KEYWORDS = re.compile(r"\b(virtual|static|explicit|constexpr|inline)\b|\[\[\w+\]\]")


def cleaned(text):
    """Without comments, strings and preprocessor lines."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", " ", text, flags=re.M)
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', text)


def statements(text):
    """Yields (scope, statement) for every statement that ends in ';'; scope: [('namespace' | 'class', name), ...].

    Bodies of functions, enums and initialisers are skipped.
    """
    scope, start, depth, i = [], 0, 0, 0
    while i < len(text):
        c = text[i]
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
        elif c == "{" and depth == 0:
            head = " ".join(text[start:i].split())
            head = re.sub(r"^(?:(?:public|private|protected)\s*:\s*)+", "", head)
            namespace = re.match(r"(?:inline )?namespace ([\w:]*)$", head)
            # A class, but not a function that returns one.
            a_class = re.match(r"(?:struct|class) (\w+)(?: final)?(?: ?:[^:].*)?$", head)
            if namespace or a_class:
                scope.append(("namespace", namespace.group(1)) if namespace else ("class", a_class.group(1)))
                start = i + 1
            else:
                inside = 1
                while inside:
                    i += 1
                    inside += (text[i] in OPENING) - (text[i] in CLOSING)
                # An initialiser belongs to the statement, which ends at its ';'; after a body a new one begins.
                if not re.match(r"\s*[;,=]", text[i + 1 :]) or head.endswith(")") or head.endswith("const"):
                    start = i + 1
        elif c == "}" and depth == 0:
            if scope:
                scope.pop()
            start = i + 1
        elif c == ";" and depth == 0:
            statement = " ".join(text[start:i].split())
            yield list(scope), re.sub(r"^(?:(?:public|private|protected)\s*:\s*)+", "", statement)
            start = i + 1
        i += 1


def without_defaults(parameters):
    """'int a = 1, F f = {}' -> 'int a, F f'"""
    result, depth, skipping = "", 0, False
    for c in parameters:
        depth += (c in OPENING + "<") - (c in CLOSING + ">")
        if c == "=" and depth == 0:
            skipping = True
        if c == "," and depth == 0:
            skipping = False
        if not skipping:
            result += c
    return ", ".join(part.strip() for part in result.split(",")) if result.strip() else ""


def expressions(text):
    """The C++ expressions that need the definitions of everything that `text` declares."""
    for scope, statement in statements(cleaned(text)):
        if not statement or NO_FUNCTION.search(statement) or "(" not in statement:
            continue
        statement = KEYWORDS.sub("", statement)
        found = re.match(r"\s*(?P<result>[\w:<>,&* ]*?[\s&*>])?\s*(?P<name>~?\w+|operator\s*\S+?)\s*\((?P<rest>.*)$", statement)
        if not found:
            continue
        rest, depth = found.group("rest"), 1
        for end, c in enumerate(rest):
            depth += (c in OPENING) - (c in CLOSING)
            if depth == 0:
                break
        parameters, qualifiers = without_defaults(rest[:end]), rest[end + 1 :].strip()
        if "=" in qualifiers:  # pure virtual, or an initialised variable
            continue
        classes = [name for kind, name in scope if kind == "class"]
        path = "::".join(name for _, name in scope if name)
        name, result = found.group("name"), (found.group("result") or "").strip()
        if not classes:
            if result:
                yield f"use(static_cast<{result} (*)({parameters})>(&{path}::{name}))"
        elif name.startswith("~"):
            yield f"use(+[](const {path}* x) {{ delete x; }})"
        elif name == classes[-1]:
            yield f"construct<{path}>(static_cast<void (*)({parameters})>(nullptr))"
        else:
            constant = "const" if "const" in qualifiers.split() else ""
            member = "*" if "static " in text and re.search(rf"static [^;]*\b{name}\s*\(", text) else f"{path}::*"
            yield f"use(static_cast<{result} ({member})({parameters}) {constant}>(&{path}::{name}))"


PROGRAM = """// Made by tests/every_declaration.py: it links only if the back end defines all that is declared for it.
{includes}
#include <cstdio>
#include <utility>

namespace {{

std::size_t used = 0;

template <class F>
void use(F f) {{
    [[maybe_unused]] static volatile F kept = nullptr;
    kept = f;
    ++used;
}}

template <class C, class... A>
void construct(void (*)(A...)) {{
    use(+[](A... a) {{ delete new C(std::forward<A>(a)...); }});
}}

}}  // namespace

{namespaces}

int main() {{
    {statements};
    std::printf("%zu declarations are defined\\n", used);
}}
"""

EXAMPLE = """
#pragma once
#define X(a) \\
    f(a);
namespace switchyard::kernels {
// void comment(int);
struct Forward;
enum class Op { none, transpose };
struct Plain { Tensor a, b = f(1); double scale = 1; Plain rows(int i) const { return g(i); } };
inline constexpr int count = 8;
using F = std::function<void(int)>;
void zero(Tensor);
void add(Tensor from, Tensor to, double alpha = 1.0);
std::vector<std::pair<int, double>> table(const std::function<void(int, int)>& f = [](int, int) {}, Op op = Op::none);
inline int defined(int x) { return x; }
template <class T> T generic(T);
const char* name_of(Op);
class Scope {
  public:
    explicit Scope(int depth = 1);
    Scope(const Scope&) = delete;
    ~Scope();
    bool empty() const { return n_ == 0; }
    double seconds(int from, int to) const;
  private:
    void grow();
    int n_ = 0;
};
}
"""
EXPECTED = [
    "use(static_cast<void (*)(Tensor)>(&switchyard::kernels::zero))",
    "use(static_cast<void (*)(Tensor from, Tensor to, double alpha)>(&switchyard::kernels::add))",
    "use(static_cast<std::vector<std::pair<int, double>> (*)(const std::function<void(int, int)>& f, Op op)>"
    "(&switchyard::kernels::table))",
    "use(static_cast<const char* (*)(Op)>(&switchyard::kernels::name_of))",
    "construct<switchyard::kernels::Scope>(static_cast<void (*)(int depth)>(nullptr))",
    "use(+[](const switchyard::kernels::Scope* x) { delete x; })",
    "use(static_cast<double (switchyard::kernels::Scope::*)(int from, int to) const>(&switchyard::kernels::Scope::seconds))",
]


def private_removed(text):
    """Skips private members, which cannot be named from outside; public members that call them need them anyway."""
    return re.sub(r"(\n {2}private:\n).*?(\n\};)", r"\2", text, flags=re.S)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--include-root", type=pathlib.Path, default=pathlib.Path("src"))
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        found = list(expressions(private_removed(EXAMPLE)))
        for line in sorted(set(found) ^ set(EXPECTED)):
            print(("not found:  " if line in EXPECTED else "not wanted: ") + line)
        print(f"{len(EXPECTED)} declarations expected, {len(found)} found")
        sys.exit(found != EXPECTED)
    used = [e for h in arguments.headers for e in expressions(private_removed(h.read_text(encoding="utf-8")))]
    includes = "\n".join(f'#include "{h.relative_to(arguments.include_root)}"' for h in arguments.headers)
    if not used:
        sys.exit(f"no declaration found in {len(arguments.headers)} headers (nothing would be checked); check their names")
    # Declarations use names of their own namespace without naming it.
    namespaces = sorted(set(re.findall(r"&(switchyard(?:::[a-z_]+)*)::", "\n".join(used))))
    program = PROGRAM.format(includes=includes, statements=";\n    ".join(used),
                             namespaces="\n".join(f"using namespace {n};" for n in namespaces))  # fmt: skip
    arguments.output.write_text(program, encoding="utf-8")


if __name__ == "__main__":
    main()
