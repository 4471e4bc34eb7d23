#!/usr/bin/env python3
"""Writes the skeleton of a training method: tools/new_method.py my_method

Makes src/methods/my_method.cpp (trains as plain LoRA until you change it), tests/methods/test_method_my_method.cpp, the
line in src/methods/registry.cpp and the row in docs/methods.md.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys

METHOD = """\
// @Class@: describe here what the method does around a step, and name its source (paper, equation).
// Until a hook is overridden it does what plain LoRA does; src/methods/method.hpp says what each hook is for. A
// method without low-rank pairs derives from Method itself.
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class @Class@ : public LowRankMethod {
  public:
    explicit @Class@(const Config& config) : interval_(option_integer(config.method, "interval")) {}

    /// Owners' gradients, already reduced and clipped: mask, precondition or project them here.
    void before_update(Optimizer& optimizer, std::int64_t step) override {
        LowRankMethod::before_update(optimizer, step);
    }

    /// All ranks hold the updated vectors: merge, reset or rotate here, and report what was done. A merge
    /// keeps the effective weight (methods/parts/residual_probe.hpp measures it).
    MethodReport after_gather(Optimizer& optimizer, std::int64_t step) override {
        if ((step + 1) % interval_ != 0) return {};
        return LowRankMethod::after_gather(optimizer, step);
    }

    /// What a resumed run needs beyond parameters and moments.
    void visit_state(StateIo& io, Optimizer& optimizer) override {
        LowRankMethod::visit_state(io, optimizer);
    }

  private:
    std::int64_t interval_;  // steps between two changes
};

}  // namespace

MethodEntry @name@() {
    const MethodOption interval{.key = "interval",
                                .type = MethodOption::Type::integer,
                                .default_value = "100",
                                .unit = "steps",
                                .help = "between two changes",
                                .minimum = 1,
                                .maximum = 1e9};
    return {
        .options = {.name = "@name@",
                    .help = "low-rank factors beside frozen weights",
                    .options = {rank_option(), alpha_option("32"), interval},
                    .lr = 1e-3},
        .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<@Class@>(c); },
        .resolve = resolve_low_rank,
        .check = check_low_rank,
        .guide = {.equation = "its equation, on one line",
                  .source = "authors and year, arXiv number",
                  .use = "when to use it",
                  .validated = "what it was compared with"}};
}

}  // namespace switchyard::methods
"""

TEST = """\
// The method @name@: its keys. What it does to a step belongs here too, with every value by a formula.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "methods/registry.hpp"

namespace switchyard {
namespace @name@_test {

TEST(@Class@, IsFoundByNameAndTakesItsKeys) {
    const ParsedConfig parsed =
        parse_config("[method]\\nname = @name@\\ninterval = 7\\n", "test.cfg", {}, method_options());
    EXPECT_EQ(option_integer(parsed.config.method, "interval"), 7);
    EXPECT_NE(make_method(parsed.config), nullptr);
}

TEST(@Class@, RefusesKeysOfOtherMethodsAndBadValues) {
    const auto parse = [](const char* line) {
        return parse_config(std::string("[method]\\nname = @name@\\n") + line, "test.cfg", {},
                            method_options());
    };
    EXPECT_THROW(parse("switch_interval = 40\\n"), UserError);
    EXPECT_THROW(parse("interval = 0\\n"), UserError);
}

}  // namespace @name@_test
}  // namespace switchyard
"""

ROW = "| `@name@` | As `lora`, and every `interval` steps ... | `rank`, `alpha`, `interval` | authors and year, arXiv number |\n"


def fail(message):
    sys.exit(f"error: {message}")


def with_registry_line(text, name):
    """The X-macro list with one more line, its backslashes aligned as clang-format does."""
    match = re.search(r"(#define SWITCHYARD_METHODS\(X\))((?:[ \t]*\\\n[ \t]*X\(\w+\))+)", text)
    if not match:
        fail("src/methods/registry.cpp has no list SWITCHYARD_METHODS(X) that this script can read; add the line by hand")
    lines = [match.group(1)] + [f"    X({n})" for n in re.findall(r"X\((\w+)\)", match.group(2)) + [name]]
    width = max(map(len, lines[:-1]))
    block = "\n".join([f"{line.ljust(width)} \\" for line in lines[:-1]] + lines[-1:])
    return text[: match.start()] + block + text[match.end() :]


def with_docs_row(text, row):
    """One more row below the last row of the table of methods (the first table of the page)."""
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.startswith("| `")), None)
    if start is None:
        fail("docs/methods.md has no table of methods; add the row by hand")
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "".join(lines[:end] + [row] + lines[end:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="snake_case; also the value of method.name")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args()
    name, root = arguments.name, arguments.root
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        fail(f"'{name}' is not a method name (it becomes a file, a function and a key's value): use snake_case, like my_method")
    source, test = root / "src/methods" / f"{name}.cpp", root / "tests/methods" / f"test_method_{name}.cpp"
    registry, docs = root / "src/methods/registry.cpp", root / "docs/methods.md"
    for path in (source, test):
        if path.exists():
            fail(f"{path} exists already (nothing was changed): choose another name")

    def filled(text):
        return text.replace("@name@", name).replace("@Class@", "".join(part.capitalize() for part in name.split("_")))

    # Read and check everything before the first file changes.
    registry_text = with_registry_line(registry.read_text(encoding="utf-8"), name)
    docs_text = with_docs_row(docs.read_text(encoding="utf-8"), filled(ROW))
    test.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((source, filled(METHOD)), (test, filled(TEST)), (registry, registry_text), (docs, docs_text)):
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(root))
    if shutil.which("clang-format"):  # line breaks depend on the length of the name
        subprocess.run(["clang-format", "-i", source, test], check=True)
    print(f"Next: fill in the hooks in src/methods/{name}.cpp, tests with values, and the row in docs/methods.md.")
    print(f"Build and try: tools/setup.sh && build/release/switchyard train my.cfg --method.name={name}")


if __name__ == "__main__":
    main()
