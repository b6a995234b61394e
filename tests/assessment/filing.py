"""Files of questions, sent and fetched."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from storyloom.assessment.v1.question_files_pb2 import (
    ExportQuestionsRequest,
    ImportQuestionsRequest,
    ImportQuestionsResponse,
    PreviewExportRequest,
    PreviewExportResponse,
)
from storyloom.assessment.v1.question_files_pb2_grpc import QuestionFileServiceStub
from tests.stack import Person

FILES = Path(__file__).parent / "files"


def files(person: Person) -> QuestionFileServiceStub:
    return person.stub(QuestionFileServiceStub, "assessment")


async def bring(person: Person, data: bytes, *, piece: int = 1 << 20, **options: Any) -> ImportQuestionsResponse:
    """Imports a file; the options go with its first piece."""

    async def requests() -> AsyncIterator[ImportQuestionsRequest]:
        for at in range(0, max(1, len(data)), piece):
            body = HttpBody(data=data[at : at + piece])
            yield ImportQuestionsRequest(file=body, **(options if at == 0 else {}))

    return await files(person).ImportQuestions(requests())


async def fetch(person: Person, **request: Any) -> bytes:
    answers = files(person).ExportQuestions(ExportQuestionsRequest(**request))
    return b"".join([one.file.data async for one in answers])


async def preview(person: Person, **request: Any) -> PreviewExportResponse:
    return await files(person).PreviewExport(PreviewExportRequest(export=ExportQuestionsRequest(**request)))
