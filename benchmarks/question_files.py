"""What 1,000 questions cost, from a file into the bank and out again, in each format."""

import io
import time
import zipfile
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from benchmarks.data import ADMIN, TENANT
from benchmarks.report import QuestionFiles
from benchmarks.scenarios import ScenarioError, Setting
from deploy.rest import Rest
from storyloom.assessment.v1.question_files_pb2 import (
    ExportQuestionsRequest,
    ImportQuestionsRequest,
    ImportQuestionsResponse,
)
from storyloom.assessment.v1.question_files_pb2_grpc import QuestionFileServiceStub

NAME = "question_files"
QUESTIONS = 1_000
PIECE = 1 << 20
MOST_BYTES = 64 << 20
LONGEST_SECONDS = 20.0
FORMATS = ("gift", "moodle_xml", "qti")
SECONDS_NEEDED = 2 * LONGEST_SECONDS


def measure(setting: Setting, echo: float) -> QuestionFiles:
    """Seconds by the caller's clock, over gRPC: all questions new, all of them there, and the export."""
    token = Rest(setting.stack.state.gateway).sign_in(TENANT, ADMIN, setting.school.password).token
    options = [("grpc.max_receive_message_length", MOST_BYTES)]
    found: dict[str, tuple[float, float, float]] = {}
    try:
        with grpc.insecure_channel(setting.stack.address("assessment"), options) as channel:
            stub, data, name = QuestionFileServiceStub(channel), gift(token_hex(4)), "gift"
            for name, following in zip(FORMATS, (*FORMATS[1:], FORMATS[0]), strict=True):
                # The first file is written here; each other one is what the questions before make in its format, with
                # another mark, so that all of it is new.
                new, made = timed(stub, data, token)
                again, there = timed(stub, data, token)
                if (made.created, there.found) != (QUESTIONS, QUESTIONS):
                    raise ScenarioError(f"{name}: {made.created} questions were new, then {there.found} were there")
                out, _ = fetched(stub, made, name, token)
                found[name] = new, again, out
                _, data = fetched(stub, made, following, token)
                data = marked(data)
    except grpc.RpcError as error:
        raise ScenarioError(f"the import failed: {error}") from None
    return QuestionFiles(QUESTIONS, found, echo)


def timed(stub: Any, data: bytes, token: str) -> tuple[float, ImportQuestionsResponse]:
    began = time.perf_counter()
    pieces = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
    requests = (ImportQuestionsRequest(file=HttpBody(data=piece)) for piece in pieces)
    answer = stub.ImportQuestions(requests, metadata=bearer(token), timeout=LONGEST_SECONDS)
    return time.perf_counter() - began, answer


def fetched(stub: Any, made: ImportQuestionsResponse, name: str, token: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    ids = [one.question_id for one in made.questions]
    request = ExportQuestionsRequest(format=f"QUESTION_FORMAT_{name.upper()}", question_ids=ids)
    answers = stub.ExportQuestions(request, metadata=bearer(token), timeout=LONGEST_SECONDS)
    data = b"".join(one.file.data for one in answers)
    return time.perf_counter() - began, data


def marked(data: bytes) -> bytes:
    """The same questions with another mark; in each file of an archive."""
    if not data.startswith(b"PK"):
        return data.replace(b"mark ", b"another mark ")
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(target, "w") as made:
        for name in archive.namelist():
            made.writestr(name, marked(archive.read(name)))
    return target.getvalue()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def gift(mark: str) -> bytes:
    """A file with questions of every type that GIFT has, as teachers write them."""
    return "\n\n".join(questions(mark)).encode()


def questions(mark: str) -> Iterator[str]:
    shapes = (
        "::choice {n}::Which word has the mark {m}? {{=one#Right.~two#It has none.~%50%three #### There.}}",
        "// [tag:cats] [id:{n}]\n::several {n}::Which two have the mark {m}? {{~%50%one ~%50%two ~%-100%three}}",
        "::short {n}::What is the mark {m} called? {{=cat =%50%kitten#A young one.}}",
        "::blank {n}::The cat with the mark {m} sat on the {{=mat =rug}} and slept.",
        "::number {n}::How many have the mark {m}? {{#{n}:0.5#Right.}}",
        "::pairs {n}::[html]<p>Match the <b>mark {m}</b>.</p> {{=cat -> fish =cow -> grass =hen -> grain}}",
    )
    for number in range(QUESTIONS):
        yield shapes[number % len(shapes)].format(n=number, m=f"{mark} {number}")
