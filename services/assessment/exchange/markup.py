"""HTML as the plain text that prompts and answers are, and what of it that leaves out."""

import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import NamedTuple

# Elements that stand on lines of their own, and those that only say which text is a paragraph or a piece of it.
BLOCKS = frozenset(
    [
        *("address", "article", "aside", "blockquote", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
        *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol"),
        *("p", "pre", "section", "table", "tr", "ul"),
    ]
)
PLAIN = frozenset({"p", "div", "br", "html", "body"})
SILENT = frozenset({"script", "style", "head", "title", "template"})
ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
TAG_NAME = re.compile(r"/?([A-Za-z][A-Za-z0-9:-]*)")
ATTRIBUTE = re.compile(r"""([A-Za-z_:][\w:.-]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")
SPACES = re.compile(r"[ \t\r\n\f]+")
ASIDES = ("!--", "!", "?")
QUOTE_OR_END = re.compile("[\"'>]")
# Longer ones end with the next bracket, whatever is quoted in them.
LONGEST_TAG = 4_000


class Plain(NamedTuple):
    """A text, and the names of the elements and attributes that it does not say, in order."""

    text: str
    lost: tuple[str, ...]


class Reduction:
    """Makes text of a walk through elements, from whatever parser it comes. White space is as a browser shows it."""

    def __init__(self, *, breaks: bool) -> None:
        """With `breaks`, line breaks of the source are line breaks."""
        self._breaks = breaks
        self._parts: list[str] = []
        self._lost: dict[str, None] = {}
        self._kept_spaces, self._silent = 0, 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if name not in PLAIN:
            self.lose(name)
        for attribute in attributes:
            if not (name == "img" and attribute == "alt"):
                self.lose(f"{name}/@{attribute}")
        if name == "br" or name in BLOCKS:
            self._break()
        elif name in ("td", "th"):
            self._parts.append(" ")
        elif name == "img" and attributes.get("alt", "").strip():
            self.say(f"[{attributes['alt'].strip()}]")
        self._kept_spaces += name == "pre"
        self._silent += name in SILENT

    def end(self, name: str) -> None:
        """An element ends."""
        if name in BLOCKS:
            self._break()
        self._kept_spaces -= name == "pre" and self._kept_spaces > 0
        self._silent -= name in SILENT and self._silent > 0

    def say(self, text: str) -> None:
        """Text is said."""
        if self._silent:
            return
        if self._kept_spaces or self._breaks:
            self._parts.append(text)
        else:
            self._parts.append(SPACES.sub(" ", text))

    def lose(self, what: str) -> None:
        """Something is not in the text."""
        self._lost[what] = None

    def plain(self) -> Plain:
        """The text so far. Lines have no white space at their ends, and there are no empty ones in a row."""
        lines = "".join(self._parts).replace("\r\n", "\n").split("\n")
        kept: list[str] = []
        for line in (SPACES.sub(" ", one).strip() for one in lines):
            if line or (self._breaks and kept and kept[-1]):
                kept.append(line)
        return Plain("\n".join(kept).strip(), tuple(self._lost))

    def _break(self) -> None:
        self._parts.append("\n")


def looks_marked(text: str) -> bool:
    """Whether a text that may be HTML is: it has a tag, or a character reference."""
    return bool(ENTITY.search(text)) or any(True for _ in _tags(text))


def plain(html: str, *, breaks: bool = False) -> Plain:
    """The text of a piece of HTML, in time that grows with its length whatever is in it."""
    made = Reduction(breaks=breaks)
    at = 0
    for start, end, tag in _tags(html):
        made.say(unescape(html[at:start]))
        at = end
        if tag.startswith(ASIDES):
            made.lose("a comment" if tag.startswith("!--") else "a declaration")
            continue
        found = TAG_NAME.match(tag)
        assert found is not None  # noqa: S101  # `_tags` yields no others
        name = found[1].lower()
        if tag[0] == "/":
            made.end(name)
            continue
        made.start(name, _attributes(tag[found.end() :]))
        if tag.endswith("/") and name in SILENT:
            made.end(name)
    made.say(unescape(html[at:]))
    return made.plain()


def _tags(html: str) -> Iterator[tuple[int, int, str]]:
    """Where the tags are, and what is between their angle brackets. A bracket that begins none is text, as it is to
    browsers; so is everything after one that is never closed."""
    at = html.find("<")
    while at >= 0:
        if html.startswith("!--", at + 1):
            end = html.find("-->", at + 4)
            end = end + 2 if end >= 0 else -1
        elif TAG_NAME.match(html, at + 1) or html.startswith(("!", "?"), at + 1):
            end = _closed(html, at + 1)
        else:
            at = html.find("<", at + 1)
            continue
        if end < 0:
            return
        yield at, end + 1, html[at + 1 : end]
        at = html.find("<", end)


def _closed(html: str, at: int) -> int:
    """The bracket that closes a tag; those in quotes do not. Without it, or with a quote that is never closed, the
    next bracket does, if there is one."""
    end = html.find(">", at)
    if end < 0 or QUOTE_OR_END.search(html, at, end) is None:
        return end
    position = at
    while True:
        found = QUOTE_OR_END.search(html, position)
        if found is None:
            return end
        if found[0] == ">":
            return found.start()
        # Only a value is quoted: a quote that follows no equals sign is a letter like others.
        close = html.find(found[0], found.end()) if html[found.start() - 1] == "=" else found.start()
        if close < 0 or close - at > LONGEST_TAG:
            return end
        position = close + 1


def _attributes(rest: str) -> dict[str, str]:
    return {name.lower(): unescape(value.strip("\"'")) for name, value in ATTRIBUTE.findall(rest[:LONGEST_TAG])}
