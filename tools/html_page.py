"""A self-contained HTML page: headings, text, tables and pictures, no external resource."""
import base64
import html
import io
import pathlib

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1e21; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dbe0; }
p.lead { color: #50555c; margin-top: 0; } figure { margin: 1rem 0; } figcaption { color: #50555c; font-size: .9rem; }
img { max-width: 100%; } table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e4e6ea; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } th { background: #f4f5f7; font-weight: 600; }
td.text, th.text { text-align: left; } tr.differs td { background: #fff4d6; } .scroll { overflow-x: auto; }
.bad { color: #a11; font-weight: 600; } .good { color: #15713a; font-weight: 600; } code, pre { font: 13px/1.4 ui-monospace, monospace; }
pre { background: #f4f5f7; padding: .7rem; overflow-x: auto; } details { margin: .6rem 0; } summary { cursor: pointer; }
"""


class Page:
    def __init__(self, title, lead=""):
        self.title = title
        self.parts = [f"<h1>{html.escape(title)}</h1>"]
        if lead:
            self.parts.append(f'<p class="lead">{html.escape(lead)}</p>')

    def heading(self, text):
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text, style=""):
        attribute = f' class="{style}"' if style else ""
        self.parts.append(f"<p{attribute}>{html.escape(text)}</p>")

    def bullets(self, lines):
        self.parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")

    def table(self, header, rows, marked=(), text_columns=(0,)):
        """Rows of values as text; `marked`: numbers of rows to highlight; `text_columns` are set left."""

        def cell(tag, column, value):
            style = ' class="text"' if column in text_columns else ""
            return f"<{tag}{style}>{html.escape(str(value))}</{tag}>"

        lines = ["<tr>" + "".join(cell("th", i, v) for i, v in enumerate(header)) + "</tr>"]
        for number, row in enumerate(rows):
            style = ' class="differs"' if number in marked else ""
            lines.append(f"<tr{style}>" + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>")
        self.parts.append('<div class="scroll"><table>' + "\n".join(lines) + "</table></div>")

    def details(self, summary, text):
        self.parts.append(f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>")

    def figure(self, figure, caption, file=None):
        """A matplotlib figure as a picture inside the page; with `file` it is written there as well."""
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        if file:
            pathlib.Path(file).write_bytes(picture.getvalue())
        data = base64.b64encode(picture.getvalue()).decode()
        self.parts.append(f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
                          f"<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self, path):
        body = "\n".join(self.parts)
        pathlib.Path(path).write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n',
            encoding="utf-8", errors="replace")


def bytes_text(value):
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024


def count_text(value):
    for unit in ("", " k", " M", " G", " T"):
        if abs(value) < 1000 or unit == " T":
            return f"{value:.3g}{unit}"
        value /= 1000


def duration_text(seconds):
    if seconds < 100:
        return f"{seconds:.3g} s"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
