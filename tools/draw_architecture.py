#!/usr/bin/env python3
"""Draws docs/architecture.svg from the includes of the sources: folders, their files, and who uses whom.

    tools/draw_architecture.py [--check]

A folder is above every folder that it includes. Arrows that follow from others are left out. --check: exits 1 if the picture
in docs/ is not the one that the sources give now.
"""
import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/architecture.svg"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
SOURCES = (".hpp", ".cpp", ".cu", ".cuh")
BACK_ENDS = re.compile(r"^(cuda|(kernels|comm|core)/cpu)$")
WIDTH, BOX, LINE, GAP, ROW_GAP, MARGIN = 1180, 500, 15, 24, 40, 20
LANES = 110  # width of the margins, left and right, in which arrows pass by other floors
CHARACTERS = 68  # of small text in a box of full width


def folder_of(name):
    return str(pathlib.PurePosixPath(name).parent) if "/" in name else "main"


def read_sources():
    """({folder: file stems}, {folder: folders included})"""
    files, uses = {}, {}
    for path in sorted(p for top in ("src", "io", "cuda") for p in (ROOT / top).rglob("*") if p.suffix in SOURCES):
        name = path.relative_to(ROOT).as_posix().removeprefix("src/")
        folder = folder_of(name)
        files.setdefault(folder, set()).add(path.stem)
        included = INCLUDE.findall(path.read_text(encoding="utf-8"))
        uses.setdefault(folder, set()).update(folder_of(i) for i in included if "/" in i)
    for folder in uses:
        uses[folder] = {u for u in uses[folder] if u != folder and u in files}
    return files, uses


def floors_of(uses):
    """The floor of each folder: 0 if it uses nothing, else one above the highest folder that it uses."""
    floors = {}

    def floor(folder):
        if folder not in floors:
            floors[folder] = 1 + max((floor(u) for u in uses[folder]), default=-1)
        return floors[folder]

    for folder in uses:
        floor(folder)
    return floors


def reduced(uses):
    """The arrows without those to folders that a used folder uses too."""

    def reach(folder):
        return {folder}.union(*map(reach, uses[folder]))

    return {f: {u for u in used if not any(u in reach(v) for v in used - {u})} for f, used in uses.items()}


def wrapped(words, characters):
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > characters:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + word
    return lines


def picture():
    files, uses = read_sources()
    floors, arrows = floors_of(uses), reduced(uses)
    boxes, y = {}, MARGIN
    for number in range(max(floors.values()), -1, -1):
        row = sorted(f for f in floors if floors[f] == number)
        width = min(BOX, (WIDTH - 2 * LANES - GAP * (len(row) - 1)) / len(row))
        texts = {f: wrapped(sorted(files[f]), int(CHARACTERS * width / BOX)) for f in row}
        height = 30 + LINE * max(map(len, texts.values()))
        x = (WIDTH - width * len(row) - GAP * (len(row) - 1)) / 2
        for folder in row:
            boxes[folder] = (x, y, width, height, texts[folder])
            x += width + GAP
        y += height + ROW_GAP
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}" '
           'font-family="sans-serif">',
           '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
           '<path d="M0 0L8 4L0 8z" fill="#5a6b7b"/></marker></defs>',
           f'<rect width="{WIDTH}" height="{y:.0f}" fill="white"/>']  # fmt: skip
    lanes = {-1: 0, 1: 0}  # in use, left and right
    for folder in sorted(arrows, key=lambda f: (-floors[f], f)):
        for used in sorted(arrows[folder], key=lambda f: (-floors[f], f)):
            (x0, y0, w0, h0, _), (x1, y1, w1, _, _) = boxes[folder], boxes[used]
            end = x1 + w1 / 2
            if floors[folder] - floors[used] == 1:
                path = f"M{x0 + w0 / 2:.0f} {y0 + h0:.0f}L{end:.0f} {y1 - 1:.0f}"
            else:  # past other floors, in a lane of its own
                side = -1 if x0 + w0 / 2 < WIDTH / 2 - 1 or (w0 >= BOX and lanes[-1] <= lanes[1]) else 1
                lanes[side] += 1
                lane = WIDTH / 2 + side * (WIDTH / 2 - LANES + 10 * lanes[side])
                above, entry = y1 - 8 - 4 * lanes[side], end + side * 7 * lanes[side]
                path = (f"M{x0 + (w0 if side > 0 else 0):.0f} {y0 + h0 - 5 - 5 * (lanes[side] % 4):.0f}H{lane:.0f}V{above:.0f}"
                        f"H{entry:.0f}V{y1 - 1:.0f}")  # fmt: skip
            out.append(f'<path d="{path}" fill="none" stroke="#5a6b7b" stroke-width="1.3" marker-end="url(#tip)"/>')
    for folder, (x, top, width, height, text) in boxes.items():
        fill = "#fdf0dc" if BACK_ENDS.match(folder) else "#e8f1ea" if folder.startswith("io/") else "#e9eff7"
        out.append(f'<rect x="{x:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" fill="{fill}" '
                   'stroke="#5a6b7b"/>')  # fmt: skip
        out.append(f'<text x="{x + 10:.0f}" y="{top + 19:.0f}" font-size="14" font-weight="bold">{folder}</text>')
        for i, line in enumerate(text):
            out.append(f'<text x="{x + 10:.0f}" y="{top + 36 + LINE * i:.0f}" font-size="11.5" fill="#333">{line}</text>')
    return "\n".join(out) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    now = picture()
    if not arguments.check:
        PICTURE.write_text(now, encoding="utf-8")
        print(f"drawn: {PICTURE.relative_to(ROOT)}")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != now:
        sys.exit("docs/architecture.svg is not what the includes say (files or includes have changed); "
                 "draw it again with tools/draw_architecture.py")  # fmt: skip
    else:
        print("docs/architecture.svg is what the includes say")


if __name__ == "__main__":
    main()
