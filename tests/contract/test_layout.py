"""Where code stands, what it is called and how long it may be."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median

import pytest

from kit.settings import SERVICES
from tests.contract import api
from tests.contract.tree import (
    ROOT,
    Function,
    classes,
    files,
    functions,
    length,
    nothing,
    parsed,
    python_files,
    text_files,
    where,
)

# On one worker, which parses all files once.
pytestmark = pytest.mark.xdist_group("tree")

PRODUCT = ("services", "kit", "gateway", "deploy", "benchmarks", "tools")
ALL_PYTHON = (*PRODUCT, "protos", "tests")
STANDARD_MODULES = {"__init__", "__main__", "models", "queries", "policies", "rules", "subjects"}
# Rules and other things big enough to stand alone. A module that is in neither list, and is no gRPC service, is a
# layer or a drawer: it belongs into one of those that exist.
NAMED_MODULES = {
    "identity": {
        *("admission", "backoff", "catalogue", "grants", "passwords", "revisions"),
        *("rosters", "seeding", "signing", "throttling"),
    },
    "content": {
        *("captions", "files", "links", "sounds", "storage"),
        *("announcements", "diffing", "enums", "highlighting", "japanese"),
        *("copying", "gathering", "material", "packaging", "slices"),
        *("covering", "importing", "jobs", "levels", "wordlists"),
        *("matching", "pages", "personalising", "projections", "publishing", "segmentation", "versioning", "weaving"),
    },
    "learning": {"enrolling", "jobs", "offline", "syncing", "projections", "risks", "scheduling", "wordlists", "xapi"},
    "assessment": {
        *("answering", "arranging", "bodies", "grading", "marks", "question_messages", "story_questions", "texts"),
        *("exchange", "filing"),
        *("composing", "jobs", "lessons", "papers"),
        *("analysis", "regrade_effects", "regrading"),
    },
    "audit": {
        *("exporting", "merkle", "publishing", "recording", "retention"),
        *("sealing", "showing", "signing", "tailing", "trees"),
    },
}
RULE_MODULES = {
    *("rules", "backoff", "bodies", "captions", "diffing", "grading", "highlighting", "japanese", "matching", "merkle"),
    *("analysis", "regrade_effects", "regrading"),
    *("answering", "arranging", "marks", "texts"),
    *("composing", "covering", "levels", "material", "packaging"),
    *("offline", "personalising"),
    *("risks", "rosters", "scheduling", "sealing", "segmentation", "story_questions", "weaving"),
    *("wordlists", "xapi"),
}
RULE_PACKAGES = {"exchange"}
LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LONGEST_HANDLER = 25
LONGEST_MEDIAN = 10
LONGEST_DOCSTRING = 3
# The tree of exceptions is drawn there, because it is what a reader of that file comes for.
DRAWN_DOCSTRINGS = {Path("kit/errors.py")}
# Alembic's generated bodies are one statement long, however many lines it takes.
MIGRATIONS = re.compile(r"services/\w+/migrations/")
# The proxy's own word for it.
NOT_VAGUE = {"_connection_manager", "connection_manager"}
VAGUE = re.compile(r"manager|helper|util|^_*(handle|process)_", re.IGNORECASE)
# In two parts, so that this file does not find itself.
UNFINISHED = re.compile("TO" + r"DO|FIX" + "ME")
SET_CONFIG = re.compile("set_" + r"config\(")

SERVICE_STEMS = [
    pytest.param(service, id=f"{api.owner(service.methods[0])}/{api.stem(service)}")
    for service in api.services()
    if api.owner(service.methods[0]) in SERVICES
]


def servicers(path: Path) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """The classes of the file that serve a gRPC service, with the names of its RPCs."""
    by_name = {service.name: {rpc.name for rpc in service.methods} for service in api.services()}
    for found in classes(path):
        if found.name in by_name:
            yield found, by_name[found.name]


def handlers() -> Iterator[tuple[Path, Function]]:
    for path in python_files("services"):
        for servicer, names in servicers(path):
            for method in servicer.body:
                if isinstance(method, Function) and method.name in names:
                    yield path, method


def public_functions(path: Path) -> Iterator[Function]:
    for node in parsed(path).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node


class TestOneStemThreeFiles:
    @pytest.mark.parametrize("service", SERVICE_STEMS)
    def test_the_servicer_has_the_name_of_its_proto(self, service: api.ServiceDescriptor) -> None:
        module = import_module(f"services.{api.owner(service.methods[0])}.{api.stem(service)}")
        assert getattr(module, service.name).SERVICE.full_name == service.full_name

    @pytest.mark.parametrize("service", SERVICE_STEMS)
    def test_the_test_has_the_name_of_its_proto(self, service: api.ServiceDescriptor) -> None:
        test = ROOT / "tests" / api.owner(service.methods[0]) / f"test_{api.stem(service)}.py"
        assert test.is_file(), f"{test.relative_to(ROOT)} is missing"

    def test_a_file_has_one_service_whose_name_is_the_singular_of_the_file(self) -> None:
        for service in api.services():
            assert len(service.file.services_by_name) == 1, service.file.name
            if api.owner(service.methods[0]) in SERVICES:
                one = api.snake(service.name.removesuffix("Service"))
                assert api.stem(service) in {one, f"{one}s", f"{one}es", f"{one}zes", f"{one[:-1]}ies", f"{one[:-2]}es"}

    @pytest.mark.parametrize("name", SERVICES)
    def test_a_service_has_no_other_modules_than_those_agreed_on(self, name: str) -> None:
        stems = {api.stem(service) for service in api.services() if api.owner(service.methods[0]) == name}
        allowed = STANDARD_MODULES | NAMED_MODULES[name] | stems
        folder = Path("services", name)
        found = {Path(path.parts[2]).stem for path in python_files("services") if path.is_relative_to(folder)}
        nothing(found - {"migrations"} - allowed)

    @pytest.mark.parametrize("name", SERVICES)
    def test_every_agreed_module_exists(self, name: str) -> None:
        folder = ROOT / "services" / name
        nothing(one for one in NAMED_MODULES[name] if not _is_module(folder / one))


def _is_module(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


class TestSizes:
    def test_no_file_is_too_long(self) -> None:
        sources = [path for path in files() if path.suffix in {".py", ".proto"} and not MIGRATIONS.match(str(path))]
        lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in sources}
        nothing(f"{path}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST_FILE)

    def test_no_function_is_too_long(self) -> None:
        found = [
            f"{where(path, one)}: {length(one)} lines"
            for path in python_files(*PRODUCT, "protos")
            if not MIGRATIONS.match(str(path))
            for one in functions(path)
            if length(one) > LONGEST_FUNCTION
        ]
        nothing(found)

    def test_handlers_load_allow_decide_record_and_answer(self) -> None:
        long = [f"{where(path, one)}: {length(one)} lines" for path, one in handlers() if length(one) > LONGEST_HANDLER]
        nothing(long)

    def test_half_of_all_functions_are_short(self) -> None:
        lengths = [
            length(one)
            for path in python_files("services", "kit")
            if not MIGRATIONS.match(str(path))
            for one in functions(path)
        ]
        assert median(lengths) <= LONGEST_MEDIAN


class TestDocstrings:
    def test_every_module_says_briefly_what_belongs_into_it(self) -> None:
        found = []
        for path in python_files(*ALL_PYTHON):
            if not (ROOT / path).read_text().strip():
                continue
            lines = (ast.get_docstring(parsed(path)) or "").splitlines()
            if not lines or (len(lines) > LONGEST_DOCSTRING and path not in DRAWN_DOCSTRINGS):
                found.append(f"{path}: {len(lines)} lines")
        nothing(found)

    def test_handlers_have_none_because_the_proto_has(self) -> None:
        nothing(where(path, one) for path, one in handlers() if ast.get_docstring(one))

    def test_public_functions_of_the_kit_and_of_rules_have_one(self) -> None:
        paths = [
            path
            for path in python_files("kit", "services")
            if path.parts[0] == "kit" or path.stem in RULE_MODULES or path.parent.name in RULE_PACKAGES
            if path.parts[1] != "alembic" and not MIGRATIONS.match(str(path))
        ]
        missing = [where(p, one) for p in paths for one in public_functions(p) if not ast.get_docstring(one)]
        nothing(one for one in missing if not one.endswith(" main"))


class TestNames:
    def test_say_what_is_done_not_that_something_is(self) -> None:
        found = [str(path) for path in python_files(*ALL_PYTHON) if VAGUE.search(path.stem)]
        for path in python_files(*ALL_PYTHON):
            nodes = (*functions(path), *classes(path))
            found += [where(path, one) for one in nodes if VAGUE.search(one.name) and one.name not in NOT_VAGUE]
        nothing(found)


class TestForbidden:
    def test_nothing_is_left_unfinished(self) -> None:
        marked = [
            f"{path}:{number}"
            for path, text in text_files()
            for number, line in enumerate(text.splitlines(), 1)
            if UNFINISHED.search(line) and path.suffix not in {".lock", ".csv"}
        ]
        nothing(marked)

    def test_only_the_kit_knows_how_a_call_is_aborted(self) -> None:
        nothing(where(path, call) for path, call in calls("services", "gateway") if called(call).startswith("abort"))

    def test_services_never_commit(self) -> None:
        nothing(where(path, call) for path, call in calls("services") if called(call) in {"commit", "rollback"})

    def test_the_tenant_is_set_by_a_statement_that_a_distributed_database_passes_on(self) -> None:
        nothing(str(path) for path, text in text_files() if SET_CONFIG.search(text))

    def test_services_know_no_status_codes(self) -> None:
        found = [
            where(path, node)
            for path in python_files("services")
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Attribute) and node.attr == "StatusCode"
        ]
        nothing(found)


def calls(*folders: str) -> Iterator[tuple[Path, ast.Call]]:
    for path in python_files(*folders):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                yield path, node


def called(call: ast.Call) -> str:
    """The last part of what is called, as `commit` in `session.commit()`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_no_service_is_left_out_of_the_import_rules() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {f"services.{name}" for name in SERVICES} == set(contracts[0]["modules"])
