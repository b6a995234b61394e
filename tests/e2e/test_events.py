"""Events between services: only from the service in which they happened."""

from uuid import uuid4

from google.protobuf.message import Message

from kit.auth import ServiceCredential
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, Event
from storyloom.event.v1.events_pb2_grpc import EventInboxServiceStub
from tests.stack import Person, School, refused


def event(school: School, payload: Message) -> Event:
    made = Event(
        id=str(uuid4()), tenant_id=school.teacher.tenant_id, aggregate_type="approval", aggregate_id=str(uuid4())
    )
    made.payload.Pack(payload)
    made.occur_time.GetCurrentTime()
    return made


def service(school: School, name: str, audience: str) -> Person:
    credential = ServiceCredential(name, school.stack.environments[name]["SERVICE_CREDENTIAL"])
    return Person(school.stack, "", name, credential.token(audience))


class TestInbox:
    async def test_refuses_an_approval_that_audit_did_not_tell_of(self, school: School) -> None:
        request = DeliverEventsRequest(events=[event(school, ApprovalDecided())])
        learning = service(school, "learning", "content")
        async with refused("SERVICE_NOT_ALLOWED"):
            await learning.stub(EventInboxServiceStub, "content").DeliverEvents(request)
        audit = service(school, "audit", "content")
        await audit.stub(EventInboxServiceStub, "content").DeliverEvents(request)

    async def test_refuses_a_credential_made_for_another_service(self, school: School) -> None:
        request = DeliverEventsRequest(events=[event(school, ApprovalDecided())])
        audit = service(school, "audit", "learning")
        async with refused("INVALID_TOKEN"):
            await audit.stub(EventInboxServiceStub, "content").DeliverEvents(request)
