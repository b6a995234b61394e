"""Packages of QTI, made by hand and by force."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from services.assessment.exchange.archives import packed
from services.assessment.exchange.drafts import Imported
from services.assessment.exchange.report import Finding
from tests.assessment.filing import FILES

FOLDER = FILES / "qti"
NAMED = 'identifier="i" title="t" adaptive="false"'
ITEM = f'{NAMED} xmlns="http://www.imsglobal.org/xsd/imsqtiasi_v3p0" time-dependent="false"'
OLD = f'{NAMED} xmlns="http://www.imsglobal.org/xsd/imsqti_v2p2" timeDependent="false"'


def sources(folder: Path = FOLDER) -> dict[str, bytes]:
    """The files of the package in `files/qti`, which has the corners of the specification, or in another folder."""
    return {
        one.relative_to(folder).as_posix(): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()
    }


def folder_packed(folder: Path) -> bytes:
    return packed(sources(folder))


def corners() -> bytes:
    return folder_packed(FOLDER)


def item(declarations: str, body: str, rest: str = "") -> bytes:
    """A single item of 3.0."""
    asked = f"<qti-item-body>{body}</qti-item-body>"
    return f"<qti-assessment-item {ITEM}>{declarations}{asked}{rest}</qti-assessment-item>".encode()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive as other systems pack them."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def findings(read: Imported) -> list[Finding]:
    return [*read.report.findings, *(one for draft in read.drafts for one in draft.report.findings)]
