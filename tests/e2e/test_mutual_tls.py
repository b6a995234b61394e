"""The five services and Envoy, all talking over mutual TLS: what works in plaintext works as well, for nobody else."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.certificates import Authority, Issued, make
from gateway.envoy import write
from gateway.settings import Settings as GatewaySettings
from kit.settings import SERVICES, TlsFiles
from kit.tls import Tls, open_port
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.learning.v1 import enrollments_pb2
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.contract import api
from tests.postgres import Cluster, empty_server, migrated
from tests.stack import PASSWORD, School, Stack, found_school, free_port

pytestmark = pytest.mark.slow
FILES = ("tls.key", "ca.crt", "tls.crt")
ENVOY = Path(sys.executable).parent / "envoy"


class Healthy(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Of whatever service it is asked."""

    async def Check(self, request: Any, context: Any) -> Any:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def impostor(own: Tls) -> AsyncIterator[str]:
    """A server with this certificate that says it is well, whoever it is taken for."""
    made = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Healthy(), made)
    port = open_port(made, "127.0.0.1:0", own)
    await made.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await made.stop(0)


def tls_settings(folder: Path) -> dict[str, str]:
    return {
        "TLS_CERTIFICATE": str(folder / "tls.crt"),
        "TLS_KEY": str(folder / "tls.key"),
        "TLS_CA": str(folder / "ca.crt"),
    }


class TlsStack(Stack):
    """Every service has its certificate; tests call with the gateway's."""

    def __init__(self, cluster: Cluster, certificates: Path) -> None:
        super().__init__(cluster)
        self.certificates = certificates
        for name, environment in self.environments.items():
            environment.update(tls_settings(certificates / name))

    def channel(self, service: str, process: str = "gateway") -> grpc.aio.Channel:
        key = f"{process} to {service}"
        if key not in self._channels:
            folder = self.certificates / process
            pair = ((folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes())
            credentials = grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes(), *pair)
            address, options = self.environments[service]["LISTEN_ADDRESS"], [("grpc.default_authority", service)]
            self._channels[key] = grpc.aio.secure_channel(address, credentials, options)
        return self._channels[key]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator makes, and hands to the processes."""
    folder = tmp_path_factory.mktemp("certificates")
    make(folder)
    return folder


@pytest.fixture(scope="module")
async def secured(certificates: Path) -> AsyncIterator[TlsStack]:
    """All five services over TLS, on a cluster of their own."""
    async with empty_server() as admin_url:
        with pytest.MonkeyPatch.context() as monkeypatch:
            running = TlsStack(await migrated(admin_url), certificates)
            await running.start(monkeypatch)
            yield running
            await running.stop()


@pytest.fixture(scope="module")
async def secured_school(secured: TlsStack) -> School:
    return await found_school(secured, "lotus", "bamboo")


@pytest.fixture(scope="module")
def start_envoy(
    secured: TlsStack, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., httpx.AsyncClient]]:
    """Starts a gateway in front of the services, with changes to its environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**changes: str) -> httpx.AsyncClient:
        folder, port = tmp_path_factory.mktemp("envoy"), free_port()
        environment = secured.environments["identity"] | tls_settings(certificates / "gateway") | changes
        environment |= {"GATEWAY_ADDRESS": f"127.0.0.1:{port}", "GATEWAY_ADMIN_ADDRESS": f"unix:{folder}/admin.sock"}
        made = write(api.api(), GatewaySettings.read(environment | {"ACCESS_LOG": ""}), folder)
        options = ("--concurrency", "1", "--disable-hot-restart", "--log-path", str(folder / "envoy.log"))
        started.append(subprocess.Popen([ENVOY, "-c", str(made), *options]))
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)

    yield start
    for one in started:
        one.terminate()
        one.wait(10)


async def until(status: int, gateway: httpx.AsyncClient, path: str = "/healthz") -> httpx.Response:
    """The first answer of this status."""
    async with asyncio.timeout(15):
        while True:
            try:
                answer = await gateway.get(path)
                if answer.status_code == status:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def by_link(folder: Path, files: dict[str, bytes]) -> None:
    """As Kubernetes mounts a secret: the files are links into a folder that is a link itself."""
    version = Path(tempfile.mkdtemp(dir=folder))
    for name, content in files.items():
        (version / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"data/{name}")
    (folder / "next").symlink_to(version.name)
    (folder / "next").replace(folder / "data")


def by_names(folder: Path, files: dict[str, bytes]) -> None:
    """As `deploy.certificates` does it: one file after the other."""
    for name, content in files.items():
        (folder / "new").write_bytes(content)
        (folder / "new").replace(folder / name)


async def sign_in(gateway: httpx.AsyncClient) -> httpx.Response:
    body = {"tenant": "lotus", "email": "teacher@lotus.example", "password": PASSWORD}
    return await gateway.post("/v1/sessions", json=body)


@pytest.fixture(scope="module")
async def gateway(start_envoy: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with start_envoy() as client:
        await until(200, client)
        yield client


class TestServices:
    async def test_ask_each_other_and_deliver_events(self, secured_school: School) -> None:
        """A course is checked by one, a learner enrolled in another, and both hear of it."""
        school = secured_school
        courses = school.teacher.stub(CourseServiceStub, "content")
        course = await courses.CreateCourse(
            courses_pb2.CreateCourseRequest(course=courses_pb2.Course(title="One"))
        )
        await courses.PublishCourse(courses_pb2.PublishCourseRequest(id=course.id))
        enrollments = school.admin.stub(EnrollmentServiceStub, "learning")
        enrollment = enrollments_pb2.Enrollment(course_id=course.id, user_id=school.student.user_id)
        await enrollments.CreateEnrollment(enrollments_pb2.CreateEnrollmentRequest(enrollment=enrollment))
        await school.settle()

    @pytest.mark.parametrize("service", SERVICES)
    async def test_are_closed_to_plaintext_and_to_strangers(self, secured: TlsStack, service: str) -> None:
        address, options = secured.environments[service]["LISTEN_ADDRESS"], [("grpc.default_authority", service)]
        stranger: Issued = Authority.new().issue("gateway")
        trusted = (secured.certificates / "gateway/ca.crt").read_bytes()
        channels = (
            grpc.aio.insecure_channel(address),
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted), options),
            grpc.aio.secure_channel(
                address, grpc.ssl_channel_credentials(trusted, stranger.key, stranger.certificate), options
            ),
            secured.channel(service),
        )
        found = []
        for channel in channels:
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            found.append((await call.code()).name)
        assert found == ["UNAVAILABLE"] * 3 + ["OK"]


class TestGateway:
    async def test_serves_json_over_tls(self, gateway: httpx.AsyncClient, secured_school: School) -> None:
        session = await sign_in(gateway)
        assert session.status_code == 200, session.text
        token = {"authorization": f"Bearer {session.json()['accessToken']}"}
        for path in ("/v1/me", "/v1/courses", "/v1/enrollments", "/v1/quizzes"):
            answer = await gateway.get(path, headers=token)
            assert answer.status_code == 200, (path, answer.text)

    @pytest.mark.parametrize(("name", "status"), [("assessment", 200), ("content", 503), ("gateway", 503)])
    async def test_asks_nobody_whose_certificate_names_another(
        self, start_envoy: Callable[..., httpx.AsyncClient], certificates: Path, name: str, status: int
    ) -> None:
        """Somebody who says to be in best health answers where assessment is said to be."""
        own = Tls(name, TlsFiles(*map(Path, tls_settings(certificates / name).values())))
        async with impostor(own) as address, start_envoy(ASSESSMENT_ADDRESS=address) as client:
            await until(status, client)
            await asyncio.sleep(2.5)
            # One that is not healthy makes the whole unhealthy.
            assert (await client.get("/healthz")).status_code == status

    async def test_is_refused_with_the_certificate_of_a_stranger(
        self, start_envoy: Callable[..., httpx.AsyncClient], certificates: Path, tmp_path: Path
    ) -> None:
        stranger = Authority.new().issue("gateway")
        (tmp_path / "tls.crt").write_bytes(stranger.certificate)
        (tmp_path / "tls.key").write_bytes(stranger.key)
        (tmp_path / "ca.crt").write_bytes((certificates / "gateway/ca.crt").read_bytes())
        async with start_envoy(**tls_settings(tmp_path)) as client:
            await until(503, client)
            assert (await sign_in(client)).status_code == 503

    @pytest.mark.parametrize("renew", [by_link, by_names])
    async def test_takes_renewed_files_without_a_restart(
        self,
        start_envoy: Callable[..., httpx.AsyncClient],
        certificates: Path,
        tmp_path: Path,
        renew: Callable[[Path, dict[str, bytes]], None],
    ) -> None:
        """It begins with a stranger's, and is served once it is given its own."""
        own = {name: (certificates / "gateway" / name).read_bytes() for name in FILES}
        stranger = Authority.new().issue("gateway")
        renew(tmp_path, own | {"tls.crt": stranger.certificate, "tls.key": stranger.key})
        async with start_envoy(**tls_settings(tmp_path)) as client:
            await until(503, client)
            renew(tmp_path, own)
            await until(200, client)
