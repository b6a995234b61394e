"""The toy as a process of its own: `python -m tests.kit.process`, its stubs on the path."""

from types import SimpleNamespace

from toy.v1 import notes_pb2

from kit.server import Service, run
from kit.settings import Settings
from tests.kit.toy import make_model, note_service


def build(settings: Settings) -> Service:
    service = Service(settings, callers=lambda grpc_service, caller: False)
    parts = SimpleNamespace(pb=notes_pb2, note=make_model(notes_pb2.Note.DESCRIPTOR), db=service.db, failing={})
    service.add(note_service(parts))  # type: ignore[arg-type]
    return service


if __name__ == "__main__":
    run("toy", build)
