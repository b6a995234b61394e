"""XML that strangers send: read by expat without entities, and so that nothing in it is overlooked."""

from collections.abc import Iterator, Sequence
from itertools import count
from pyexpat import ErrorString, ExpatError, ParserCreate
from typing import Any, NoReturn
from xml.sax.saxutils import escape, quoteattr

from services.assessment.exchange.drafts import LIMITS, Limits, Unreadable
from services.assessment.exchange.report import Place, Report

XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
# What XML 1.0 has no way to say.
UNSAYABLE = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF])
# Of a name with its namespace, and of the names of elements in one another: reports have a path for each element.
LONGEST_NAME, LONGEST_PATH = 300, 1_000
Kept = list[list[str]]


class Element:
    """An element; `content` has its texts and elements in their order. Its name is without the prefix, and so are those
    of attributes, unless they are of a namespace: `xml:lang`, or `{uri}name`.

    What is asked for is taken. What is never taken is found by `settle`, which is what it is for.
    """

    __slots__ = ("_heard", "_known", "_taken", "as_it_is", "attributes", "content", "line", "name", "namespace")

    def __init__(self, name: str, line: int = 0, namespace: str = "") -> None:
        self.name, self.line, self.namespace = name, line, namespace
        self.attributes: dict[str, str] = {}
        self.content: list[Element | str] = []
        self._taken, self._heard, self.as_it_is = False, False, False
        self._known: set[str] = set()

    @property
    def elements(self) -> "list[Element]":
        """Its elements, which are not taken by that."""
        return [one for one in self.content if isinstance(one, Element)]

    def get(self, attribute: str, default: str = "") -> str:
        """The value of an attribute, taken."""
        self._known.add(attribute)
        return self.attributes.get(attribute, default)

    def all(self, *names: str) -> "list[Element]":
        """The elements with one of these names, taken."""
        found = [one for one in self.elements if one.name in names]
        for one in found:
            one._taken = True
        return found

    def one(self, name: str) -> "Element | None":
        """The first element of this name, taken; a second one is not."""
        for child in self.elements:
            if child.name == name:
                child._taken = True
                return child
        return None

    def text(self) -> str:
        """Its own text, taken."""
        self._heard = True
        return "".join(one for one in self.content if isinstance(one, str))

    def text_of(self, name: str, default: str = "") -> str:
        """The text of its first element of this name, both taken."""
        found = self.one(name)
        return default if found is None else found.text()

    def claim(self) -> "Element":
        """Takes it, and nothing that is in it."""
        self._taken = True
        return self

    def take(self) -> "Element":
        """Takes it with everything in it, for whoever looks at all of it by other ways."""
        self._taken = self._heard = True
        self._known |= self.attributes.keys()
        for one in self.elements:
            one.take()
        return self

    def mark(self, child: "Element") -> "Element":
        """Takes this one of its elements, but not what is in it."""
        child._taken = True
        return child

    def took(self, child: "Element") -> bool:
        """Whether this one of its elements is taken."""
        return child._taken

    def walk(self) -> "Iterator[Element]":
        """The element and all in it."""
        waiting = [self]
        while waiting:
            one = waiting.pop()
            yield one
            waiting += reversed(one.elements)

    def add(self, name: str, text: str = "", **attributes: str) -> "Element":
        """A new last element, with its text; for writing."""
        child = Element(name, namespace=self.namespace)
        child.attributes |= attributes
        if text:
            child.content.append(text)
        self.content.append(child)
        return child


def parse(data: bytes, limits: Limits = LIMITS, file: str = "") -> Element:
    """The root of a document in UTF-8, or in UTF-16 with a byte order mark. A document type, whatever is in it, is
    refused, and with it every entity that is not of XML itself. Raises `Unreadable`. Comments and processing
    instructions become elements named `#comment` and `?`."""
    return _Reader(limits, file).read(decoded(data, file))


def decoded(data: bytes, file: str = "") -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark."""
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{_at(file)}it is not UTF-8 ({error.reason} at byte {error.start})") from None


def _at(file: str, line: int = 0) -> str:
    return (f"{file}: " if file else "") + (f"line {line}: " if line else "")


class _Reader:
    def __init__(self, limits: Limits, file: str) -> None:
        self.limits, self.file = limits, file
        self.open: list[Element] = []
        self.root: Element | None = None
        self.left, self.length = limits.elements, 0
        # The text is decoded by us, so what the document says of its encoding no longer matters.
        self.parser: Any = ParserCreate("utf-8", namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.ordered_attributes = True
        self.parser.StartElementHandler, self.parser.EndElementHandler = self.start, self.end
        self.parser.CharacterDataHandler = self.said
        self.parser.CommentHandler = lambda text: self.aside("#comment", text)
        self.parser.ProcessingInstructionHandler = lambda name, text: self.aside("?", f"{name} {text}")
        self.parser.StartDoctypeDeclHandler = self.doctype

    def read(self, text: str) -> Element:
        try:
            # All at once: given in pieces, a long token would be read again with each of them.
            self.parser.Parse(text.encode(), True)
        except ExpatError as error:
            raise Unreadable(f"{_at(self.file, error.lineno)}it is not XML: {ErrorString(error.code)}") from None
        assert self.root is not None  # noqa: S101  # expat refuses documents without one
        return self.root

    def refuse(self, message: str) -> NoReturn:
        raise Unreadable(f"{_at(self.file, self.parser.CurrentLineNumber)}{message}")

    def doctype(self, *_: Any) -> None:
        self.refuse("it has a document type, which is refused because of the entities in it")

    def start(self, name: str, pairs: Sequence[str]) -> None:
        namespace, _, local = name.rpartition(" ")
        made = Element(local, self.parser.CurrentLineNumber, namespace)
        self.length += len(local)
        if self.length > LONGEST_PATH or any(len(one) > LONGEST_NAME for one in (name, *pairs[::2])):
            self.refuse("it has names that are too long")
        if len(pairs) > 2 * self.limits.attributes:
            self.refuse(f"an element has more than {self.limits.attributes} attributes")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if len(value) > self.limits.text:
                self.refuse(f"an attribute has more than {self.limits.text:,} characters")
            made.attributes[_attribute(key)] = value
        self.left -= len(made.attributes)
        self.place(made)
        self.open.append(made)
        if len(self.open) > self.limits.depth:
            self.refuse(f"elements are more than {self.limits.depth} deep in one another")

    def place(self, made: Element) -> None:
        self.left -= 1
        if self.left < 0:
            self.refuse(f"it has more than {self.limits.elements:,} elements and attributes")
        if self.open:
            self.open[-1].content.append(made)
        elif self.root is None and made.name[0] not in "#?":
            self.root = made

    def end(self, name: str) -> None:
        self.length -= len(self.open.pop().name)

    def said(self, text: str) -> None:
        self.open[-1].content.append(text)

    def aside(self, name: str, text: str) -> None:
        made = Element(name, self.parser.CurrentLineNumber)
        made.content.append(text)
        self.place(made)


def _attribute(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    if namespace == XML_NAMESPACE:
        return f"xml:{local}"
    return f"{{{namespace}}}{local}" if namespace else local


def settle(root: Element, report: Report, *, file: str = "", path: str = "", most: int = LIMITS.preserved) -> Kept:
    """Tells of everything in the element: what was taken is mapped, what was not is kept, up to `most` characters, and
    what does not fit any more is refused. Returns what is kept, for `restore`: pairs of the path of the element that it
    is in (`answer[2]`, `answer[2]/@name` for an attribute) and its original."""
    return _Settling(report, file, most).all(root, path or root.name)


class _Settling:
    def __init__(self, report: Report, file: str, most: int) -> None:
        self.report, self.file, self.left = report, file, most
        self.kept: Kept = []

    def all(self, root: Element, path: str) -> Kept:
        waiting = [(root, path, "")]
        while waiting:
            element, path, where = waiting.pop()
            self.one(element, path, where)
            numbers: dict[str, Any] = {}
            below = []
            for child in element.elements:
                if child._taken:
                    number = next(numbers.setdefault(child.name, count(1)))
                    below.append((child, f"{path}/{child.name}", f"{where}/{child.name}[{number}]".lstrip("/")))
                else:
                    self.untaken(child, f"{path}/{child.name}", where)
            waiting += reversed(below)
        return self.kept

    def one(self, element: Element, path: str, where: str) -> None:
        place = Place(element.line, self.file)
        self.report.mapped(path, place)
        for name, value in element.attributes.items():
            if name in element._known:
                self.report.mapped(f"{path}/@{name}", place)
            else:
                self.keep(f"{where}/@{name}".lstrip("/"), value, [(f"{path}/@{name}", place)])
        said = "".join(one for one in element.content if isinstance(one, str))
        if not element._heard and said.strip():
            self.keep(f"{where}/text()".lstrip("/"), said, [(f"{path}/text()", place)])

    def untaken(self, element: Element, path: str, where: str) -> None:
        names = list(_names(element, path, self.file))
        if element.name[0] in "#?":
            for name, place in names:
                self.report.refused(name, place, "it is no part of a question")
        else:
            self.keep(where, written(element), names)

    def keep(self, where: str, original: str, names: Sequence[tuple[str, Place]]) -> None:
        fits = len(where) + len(original) <= self.left
        if fits:
            self.left -= len(where) + len(original)
            self.kept.append([where, original])
        for name, place in names:
            if fits:
                self.report.preserved(name, place, "it is kept for the export in the same format")
            else:
                self.report.refused(name, place, "it is too long to be kept")


def _names(element: Element, path: str, file: str) -> Iterator[tuple[str, Place]]:
    """The element, and all that is in it, for a report."""
    waiting = [(element, path)]
    while waiting:
        one, here = waiting.pop()
        place = Place(one.line, file)
        yield here, place
        yield from ((f"{here}/@{name}", place) for name in one.attributes)
        waiting += [(child, f"{here}/{child.name}") for child in reversed(one.elements)]


def refuse(element: Element, report: Report, message: str, *, file: str = "", path: str = "") -> None:
    """Tells that the element and everything in it is lost."""
    for name, place in _names(element, path or element.name, file):
        report.refused(name, place, message)


def refuse_rest(element: Element, report: Report, message: str, *, file: str, path: str = "") -> None:
    """Tells that all that was not taken in the element is lost; it is not in it afterwards."""
    path = path or element.name
    for name in [name for name in element.attributes if name not in element._known]:
        report.refused(f"{path}/@{name}", Place(element.line, file), message)
        del element.attributes[name]
    for child in element.elements:
        if child._taken:
            refuse_rest(child, report, message, file=file, path=f"{path}/{child.name}")
        else:
            refuse(child, report, message, file=file, path=f"{path}/{child.name}")
    element.content = [one for one in element.content if isinstance(one, str) or one._taken]


def restore(root: Element, kept: Kept, report: Report, place: Place) -> None:
    """Puts what was kept back into what is written; what has no place there any more is refused. An element that is
    there already is not there twice: whoever writes it again has read it from there."""
    for where, original in kept:
        path, _, last = where.rpartition("/")
        attribute = last.startswith("@")
        found = _at_path(root, path if attribute or last == "text()" else where)
        if found is None:
            report.refused(where, place, "it was kept of something that the question no longer has")
        elif attribute:
            found.attributes.setdefault(last[1:], original)
        elif last == "text()":
            found.content.append(original)
        else:
            found.content.append(_fragment(original))


def _at_path(root: Element, path: str) -> Element | None:
    found = root
    for step in path.split("/") if path else ():
        name, _, number = step.rstrip("]").partition("[")
        same = [one for one in found.elements if one.name == name]
        if len(same) < int(number or 1):
            return None
        found = same[int(number or 1) - 1]
    return found


def _fragment(original: str) -> Element:
    made = parse(original.encode())
    made.as_it_is = True
    return made


def document(root: Element) -> bytes:
    """The file with this root."""
    return (DECLARATION + written(root) + "\n").encode()


def written(element: Element, above: str = "") -> str:
    """The element as XML. Elements that have no text of their own are indented only if they say so by their content, so
    reading it gives the same."""
    parts: list[str] = []
    _write(element, above, parts)
    return "".join(parts)


def _write(element: Element, above: str, parts: list[str]) -> None:
    if element.name == "#comment":
        parts.append(f"<!--{''.join(map(str, element.content)).replace('--', '- -')}-->")
        return
    if element.name == "?":
        return
    own = f" xmlns={quoteattr(element.namespace)}" if element.namespace != above else ""
    prefixes = {name[1:].partition("}")[0] for name in element.attributes if name[0] == "{"}
    known = {uri: f"n{number}" for number, uri in enumerate(sorted(prefixes), 1)}
    own += "".join(f" xmlns:{prefix}={quoteattr(uri)}" for uri, prefix in known.items())
    own += "".join(f" {_spelled(name, known)}={_quoted(value)}" for name, value in element.attributes.items())
    if not element.content:
        parts.append(f"<{element.name}{own}/>")
        return
    parts.append(f"<{element.name}{own}>")
    for one in element.content:
        if isinstance(one, str):
            parts.append(escape(one.translate(UNSAYABLE), {"\r": "&#13;"}))
        else:
            _write(one, element.namespace, parts)
    parts.append(f"</{element.name}>")


def _spelled(name: str, prefixes: dict[str, str]) -> str:
    uri, _, local = name[1:].partition("}")
    return f"{prefixes[uri]}:{local}" if name[0] == "{" else name


def _quoted(value: str) -> str:
    return quoteattr(value.translate(UNSAYABLE), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def indented(root: Element, level: int = 0) -> Element:
    """The same with line breaks around elements that have only elements, for people to read; not in what was kept."""
    inner = root.elements
    if not root.as_it_is and inner and len(inner) == len(root.content):
        pad = "\n" + "  " * (level + 1)
        content: list[Element | str] = []
        for one in inner:
            content += [pad, indented(one, level + 1)]
        root.content = [*content, "\n" + "  " * level]
    return root
