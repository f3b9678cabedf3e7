"""Draw docs/images/architecture.svg, the picture of the architecture: `python docs/images/architecture.py`."""

from pathlib import Path
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 560
STYLE: Final = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1c2733 }
.small { font-size: 12px; fill: #4a5a6a }
.group { fill: #f5f7fa; stroke: #cfd8e1 }
.label { font-weight: 600; fill: #35506b; paint-order: stroke; stroke: #f5f7fa; stroke-width: 6px }
.box { fill: #ffffff; stroke: #7b93ab; stroke-width: 1.3 }
.file { fill: #e8f1fb; stroke: #3d77b5; stroke-width: 1.3 }
.arrow { fill: none; stroke: #51677d; stroke-width: 1.6; marker-end: url(#head) }
"""
HEAD: Final = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#51677d"/></marker>'
)


def group(x: int, y: int, width: int, height: int, label: str) -> str:
    """A labelled area."""
    return (
        f'<rect class="group" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
        f'<text class="label" x="{x + 14}" y="{y + 24}">{label}</text>'
    )


def box(x: int, y: int, width: int, *lines: str, kind: str = "box", height: int = 52) -> str:
    """A box with a title and, below it, small lines."""
    first = y + height / 2 + 5 - 8.5 * (len(lines) - 1)
    texts = "".join(
        f'<text class="{"small" if at else "title"}" x="{x + width / 2:g}" y="{first + 17 * at:g}" '
        f'text-anchor="middle">{line}</text>'
        for at, line in enumerate(lines)
    )
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>{texts}'


def arrow(*points: tuple[int, int]) -> str:
    """A line through the points with a head at the last one."""
    path = " L".join(f"{x} {y}" for x, y in points)
    return f'<path class="arrow" d="M{path}"/>'


def note(x: int, y: int, text: str) -> str:
    """A small line of text, centred at x."""
    return f'<text class="small" x="{x}" y="{y}" text-anchor="middle">{text}</text>'


def draw() -> str:
    """The whole picture."""
    parts = [
        group(10, 10, 740, 182, "train: PyTorch Lightning"),
        box(28, 48, 150, "Tables", "Parquet, CSV, JSONL", kind="file"),
        box(28, 120, 150, "twotower.toml", "columns, features", kind="file"),
        box(214, 84, 140, "Prepare", "split, vocabularies"),
        box(390, 48, 150, "Trained towers", "softmax over items"),
        box(390, 120, 150, "EASE", "closed form"),
        box(576, 84, 158, "Ensemble", "concatenated vectors"),
        arrow((178, 74), (196, 74), (196, 104), (212, 104)),
        arrow((178, 146), (196, 146), (196, 116), (212, 116)),
        arrow((354, 104), (372, 104), (372, 74), (388, 74)),
        arrow((354, 116), (372, 116), (372, 146), (388, 146)),
        arrow((540, 74), (558, 74), (558, 104), (574, 104)),
        arrow((540, 146), (558, 146), (558, 116), (574, 116)),
        group(10, 204, 740, 128, "export: one ONNX file per tower, checked against PyTorch"),
        box(108, 264, 190, "item_tower.onnx", "item features to vector", kind="file"),
        box(382, 264, 190, "user_tower.onnx", "features, history to vector", kind="file"),
        arrow((655, 136), (655, 246), (477, 246), (477, 262)),
        arrow((655, 136), (655, 246), (203, 246), (203, 262)),
        group(10, 344, 740, 206, "retrieval: no PyTorch"),
        box(108, 384, 190, "Items", "id, columns", kind="file"),
        box(382, 384, 190, "Query", "features, history, filter"),
        box(108, 480, 190, "FAISS index", "one vector per item", kind="file"),
        box(382, 480, 190, "Search", "filter, exclude, MMR"),
        box(614, 480, 120, "Hits", "id, score, columns"),
        arrow((203, 316), (203, 382)),
        arrow((477, 316), (477, 382)),
        arrow((203, 436), (203, 478)),
        note(252, 462, "item vectors"),
        arrow((477, 436), (477, 478)),
        note(522, 462, "user vector"),
        arrow((298, 506), (380, 506)),
        arrow((572, 506), (612, 506)),
        note(674, 470, "CLI, HTTP, Python"),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="From tables to hits"><style>{STYLE}</style><defs>{HEAD}</defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
