"""The documentation says what is there: every setting, every target, every link."""

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from kit.settings import Settings
from tests.contract.tree import ROOT, files, nothing, parsed, python_files, text_files, where

# On one worker, which parses all files once.
pytestmark = pytest.mark.xdist_group("tree")

SETTINGS = Path("docs/settings.md")
# Of the system; and what the runner sets for libraries in its children.
OF_LIBRARIES = {"GRPC_ENABLE_FORK_SUPPORT", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"}
NOT_SETTINGS = {"PATH", "HOME", "USER", "PYTHONPATH", "VIRTUAL_ENV"} | OF_LIBRARIES
DECISION_PARTS = ("**Context.**", "**Decision.**", "**Consequences.**", "**Alternatives.**")
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
TARGET = re.compile(r"^([a-z][a-z0-9-]*):(?!=)", re.MULTILINE)
# In code, where a command is meant: `make` is also an English word.
MENTION = re.compile(r"(?:`|^\s*\$?\s*)make ([a-z][a-z-]*)", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
# In parts, so that this file does not find itself.
OUTSIDE = (r"\.\./" + "shared", "/work" + "/", "py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.")
ELSEWHERE = re.compile("|".join(OUTSIDE))
# Says whence the packages came that it locks.
LOCKS = {".lock"}


@cache
def markdown() -> dict[Path, str]:
    return {path: text for path, text in text_files() if path.suffix == ".md"}


def environment_variables(*folders: str) -> dict[str, str]:
    """The names that code asks the environment for, with where."""
    found: dict[str, str] = {}
    # Most files ask for nothing, which is told faster than they are parsed.
    for path in (one for one in python_files(*folders) if "environ" in (ROOT / one).read_text()):
        for node in ast.walk(parsed(path)):
            for one in asked(node):
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and VARIABLE.fullmatch(one.value):
                    found.setdefault(one.value, where(path, node))
    return {name: at for name, at in found.items() if name not in NOT_SETTINGS}


def asked(node: ast.AST) -> list[ast.expr]:
    """What may be a name in `environ[…]`, `environ.get(…)` or `read(environ, …)`."""
    if isinstance(node, ast.Subscript) and is_environment(node.value):
        return [node.slice]
    if isinstance(node, ast.Call):
        method = isinstance(node.func, ast.Attribute) and is_environment(node.func.value)
        if method or (node.args and is_environment(node.args[0])):
            return node.args[:2]
    return []


def is_environment(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name.startswith("environ")


class TestSettings:
    def test_of_the_services_are_described(self) -> None:
        text = markdown().get(SETTINGS, "")
        names = [one.name.upper() for one in fields(Settings) if one.name != "service"]
        nothing(f"{SETTINGS} does not name {name}" for name in names if f"`{name}`" not in text)

    def test_of_gateway_runner_and_benchmarks_are_described(self) -> None:
        text = markdown().get(SETTINGS, "")
        asked = environment_variables("kit", "services", "gateway", "deploy", "benchmarks")
        assert {"GATEWAY_ADDRESS", "LOAD_DEMO", "RATE_LIMIT_PER_TENANT"} <= asked.keys()
        nothing(f"{SETTINGS} does not name {name} ({at})" for name, at in asked.items() if f"`{name}`" not in text)

    def test_that_are_described_exist(self) -> None:
        known = {one.name.upper() for one in fields(Settings)}
        known |= environment_variables("kit", "services", "gateway", "deploy", "benchmarks", "tests").keys()
        described = re.findall(r"^\|\s*`([A-Z][A-Z0-9_]+)`", markdown().get(SETTINGS, ""), re.MULTILINE)
        nothing(f"{SETTINGS} describes {name}, which nothing reads" for name in described if name not in known)


class TestCommands:
    def test_that_are_mentioned_can_be_made(self) -> None:
        targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
        mentioned = [(path, name) for path, text in markdown().items() for name in MENTION.findall(text)]
        nothing(f"{path}: make {name}" for path, name in mentioned if name not in targets)

    def test_are_each_explained_by_make_itself(self) -> None:
        lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if TARGET.match(line)]
        nothing(line for line in lines if " ## " not in line)

    def test_of_the_readme_are_the_two_that_matter(self) -> None:
        assert {"tour", "test"} <= set(MENTION.findall(markdown().get(Path("README.md"), "")))


class TestPages:
    def test_lead_to_files_that_exist(self) -> None:
        nothing(
            f"{path}: {target}"
            for path, text in markdown().items()
            for target in LINK.findall(text)
            if "://" not in target and not target.startswith("mailto:") and not (ROOT / path.parent / target).exists()
        )

    @pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"])
    def test_that_every_project_has_are_there(self, name: str) -> None:
        assert Path(name) in files()

    def test_of_decisions_say_why(self) -> None:
        pages = {path: text for path, text in markdown().items() if path.parent == Path("docs/decisions")}
        assert pages
        nothing(f"{path} lacks {part}" for path, text in pages.items() for part in DECISION_PARTS if part not in text)

    def test_and_code_depend_on_nothing_outside_the_project(self) -> None:
        nothing(
            f"{path}:{number}: {line.strip()[:100]}"
            for path, text in text_files()
            if path.suffix not in LOCKS
            for number, line in enumerate(text.splitlines(), 1)
            if ELSEWHERE.search(line)
        )
