"""The project's files as git would take them, and their Python as syntax trees."""

import ast
import gc
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or could be, relative to the root, as far as it exists."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return tuple(sorted(path for name in listed.split("\0") if name and (ROOT / (path := Path(name))).is_file()))


def text_files() -> Iterator[tuple[Path, str]]:
    for path in files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            yield path, data.decode()


def python_files(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.parts[0] in folders]


@cache
def parsed(path: Path) -> ast.Module:
    source = (ROOT / path).read_text()
    # Python before 3.11.8 fails with a SystemError where a collection in the midst of this one parses on its own, as
    # the traceback of a warning does that tells of something not closed, by whichever test.
    gc.disable()
    try:
        return ast.parse(source, filename=str(path))
    finally:
        gc.enable()


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of the file, nested ones too."""
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef))


def length(function: Function) -> int:
    """Lines from `def` to the last, without decorators."""
    return (function.end_lineno or 0) - function.lineno + 1


def where(path: Path, node: ast.AST) -> str:
    name = getattr(node, "name", "")
    return f"{path}:{getattr(node, 'lineno', 0)} {name}".rstrip()


def nothing(found: Iterable[str]) -> None:
    """Asserts that the check found nothing, and tells everything that it found."""
    listed = sorted(found)
    assert not listed, "\n" + "\n".join(listed)
