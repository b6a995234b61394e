"""What 10,000 words from a CSV file cost: when all are new, and when nothing is to be changed."""

import time
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import grpc

from benchmarks.data import ADMIN, TENANT
from benchmarks.report import Imports
from benchmarks.scenarios import ScenarioError, Setting
from deploy.rest import Rest
from storyloom.content.v1.vocabulary_files_pb2 import (
    ON_EXISTING_VOCABULARY_UPDATE,
    ImportVocabulariesRequest,
    VocabularyImportOptions,
    VocabularyImportSummary,
)
from storyloom.content.v1.vocabulary_files_pb2_grpc import VocabularyFileServiceStub

NAME = "imports"
WORDS = 10_000
PIECE = 64 * 1024
LONGEST_SECONDS = 45.0
SECONDS_NEEDED = 2 * LONGEST_SECONDS
HEADER = "term,translation,part_of_speech,level,explanation,forms\n"


def measure(setting: Setting, echo: float) -> Imports:
    """Seconds by the caller's clock, over gRPC."""
    token = Rest(setting.stack.state.gateway).sign_in(TENANT, ADMIN, setting.school.password).token
    # A language of its own each time: every word is new, and no story is woven with it.
    options = VocabularyImportOptions(
        on_existing=ON_EXISTING_VOCABULARY_UPDATE, language=f"qaa-x-{token_hex(4)}", learning_language="en"
    )
    try:
        with grpc.insecure_channel(setting.stack.address("content")) as channel:
            stub = VocabularyFileServiceStub(channel)
            new, made = timed(stub, options, token)
            again, found = timed(stub, options, token)
    except grpc.RpcError as error:
        raise ScenarioError(f"the import failed: {error}") from None
    if (made.created, found.unchanged) != (WORDS, WORDS):
        raise ScenarioError(f"of {WORDS} words {made.created} were new and then {found.unchanged} were there")
    return Imports(WORDS, new, again, echo)


def timed(stub: Any, options: VocabularyImportOptions, token: str) -> tuple[float, VocabularyImportSummary]:
    """One import, to its last answer."""
    began = time.perf_counter()
    metadata = (("authorization", f"Bearer {token}"),)
    answers = list(stub.ImportVocabularies(requests(options), metadata=metadata, timeout=LONGEST_SECONDS))
    return time.perf_counter() - began, answers[-1].summary


def requests(options: VocabularyImportOptions) -> Iterator[ImportVocabulariesRequest]:
    data = file(WORDS)
    yield ImportVocabulariesRequest(options=options)
    for at in range(0, len(data), PIECE):
        yield ImportVocabulariesRequest(data=data[at : at + PIECE])


def file(words: int) -> bytes:
    """A list of words as a school might have one: with levels, explanations and now and then a form."""
    parts = ("noun", "verb", "adjective", "phrase")
    rows = (
        f'từ số {n},word {n},{parts[n % 4]},{"ABC"[n % 3]}1,"Word {n}: là từ thứ {n}, để đo.",'
        f"{f'các từ số {n}=words {n}' if n % 5 == 0 else ''}\n"
        for n in range(words)
    )
    return (HEADER + "".join(rows)).encode()
