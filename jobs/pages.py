"""One self-contained HTML page out of pictures, curves and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from jobs.console import shown

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2129; background: #fafafa;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
img { max-width: 100%; border-radius: 4px; image-rendering: pixelated }
figure { margin: 1rem 0 } figcaption { color: #5f6672; font-size: .9rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left }
td.figure { font-variant-numeric: tabular-nums; text-align: right }
code, pre { background: #eef0f3; border-radius: 4px; padding: .1rem .35rem }
pre { padding: .7rem 1rem; overflow-x: auto }
"""

Marked = Set[tuple[int, int]]  # row and column of cells, names of rows left out


@dataclass
class Section:
    """A heading and what is under it, in order."""

    title: str
    body: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        self.body.append(f"<p>{escape(text)}</p>")

    def command(self, *lines: str) -> None:
        self.body.append(f"<pre>{escape(chr(10).join(lines))}</pre>")

    def figures(self, values: Mapping[str, float | str]) -> None:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td class=figure>"
            f"{escape(value if isinstance(value, str) else shown(value))}</td></tr>"
            for name, value in values.items()
        )
        self.body.append(f"<table>{rows}</table>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], strong: Marked) -> None:
        """Rows of cells, of which the first names the row; `strong` are the places of the best."""
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        lines = [f"<tr>{top}</tr>"]
        for number, (name, *cells) in enumerate(rows):
            told = "".join(
                f"<td class=figure>{f'<b>{cell}</b>' if (number, place) in strong else cell}</td>"
                for place, cell in enumerate(map(escape, cells))
            )
            lines.append(f"<tr><th>{escape(name)}</th>{told}</tr>")
        self.body.append(f"<table>{''.join(lines)}</table>")

    def picture(self, image: bytes, caption: str, kind: str = "png") -> None:
        data = base64.b64encode(image).decode()
        self.body.append(
            f'<figure><img src="data:image/{kind};base64,{data}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def curve(self, points: Sequence[tuple[int, float]], name: str) -> None:
        """A curve over the images trained on."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([seen for seen, _ in points], [value for _, value in points], marker="o")
        axes.set_xlabel("images")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        out = io.BytesIO()
        figure.savefig(out, dpi=110)
        self.picture(out.getvalue(), f"{name} over the images trained on")


def write(path: Path, title: str, sections: Sequence[Section]) -> None:
    parts = [f"<h2>{escape(s.title)}</h2>{''.join(s.body)}" for s in sections]
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{''.join(parts)}</html>\n",
        encoding="utf-8",
    )
