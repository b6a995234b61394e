"""What pictures are made of: SVG that follows the reader's colours, with nothing but the standard library."""

from collections.abc import Iterable
from html import escape

WIDTH, LEFT, RIGHT = 720, 44, 16
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-size: 16px; font-weight: 600 } .quiet { fill: #777 }
line { stroke: #bbb } .bar { fill: #2a78d6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6 } .quiet { fill: #9a9a9a } line { stroke: #555 } .bar { fill: #63a6f2 }
}"""


def picture(title: str, height: int, style: str, parts: Iterable[str]) -> str:
    """The parts, drawn in STYLE and this one."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    return "\n".join([opening, f"<title>{title}</title><style>{STYLE}{style}</style>", *parts, "</svg>\n"])


def box(x: float, y: float, width: float, height: float, kind: str, inside: str = "") -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{inside}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, said: str, kind: str = "", *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
