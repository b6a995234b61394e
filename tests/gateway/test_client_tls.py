"""Clients' TLS ends at the gateway: with which versions and protocols, and with certificates renewed while it runs."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509

from deploy.certificates import Authority, Issued
from gateway import envoy
from gateway.descriptors import Api
from gateway.settings import PublicTls, Settings
from gateway.tls import refuse_unusable
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from tests.gateway.edge import Edge, running

# One Envoy serves them all.
pytestmark = pytest.mark.xdist_group("gateway-client-tls")
AUTHORITY = Authority.new()
NAME = "localhost"


def by_link(folder: Path, issued: Issued) -> None:
    """As Kubernetes mounts a secret: the files are links into a folder that is a link itself."""
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, content in files(issued):
        (version / name).write_bytes(content)
    (folder / "..next").symlink_to(version.name)
    (folder / "..next").replace(folder / "..data")
    for name, _ in files(issued):
        if not (folder / name).is_symlink():
            (folder / "link").symlink_to(f"..data/{name}")
            (folder / "link").replace(folder / name)


def by_names(folder: Path, issued: Issued) -> None:
    """One file after the other, each at once."""
    for name, content in files(issued):
        (folder / "new").write_bytes(content)
        (folder / "new").replace(folder / name)


def files(issued: Issued) -> tuple[tuple[str, bytes], ...]:
    return ("tls.key", issued.key), ("tls.crt", issued.certificate)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    by_link(folder, AUTHORITY.issue(NAME))
    return folder


def trusting(*protocols: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=AUTHORITY.pem.certificate.decode())
    if protocols:
        made.set_alpn_protocols(list(protocols))
    return made


@pytest.fixture(scope="module")
async def edge(
    api: Api, written: Path, mounted: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Edge]:
    environment = {"GATEWAY_TLS_CERTIFICATE": str(mounted / "tls.crt"), "GATEWAY_TLS_KEY": str(mounted / "tls.key")}
    folder = tmp_path_factory.mktemp("tls")
    async with running(api, written, folder, verify=trusting(), settings=environment) as found:
        yield found


class Connection:
    """One connection by HTTP/1.1, kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.tls: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @classmethod
    async def open(cls, edge: Edge, context: ssl.SSLContext | None = None) -> "Connection":
        port = int(edge.address.rpartition(":")[2])
        streams = asyncio.open_connection("127.0.0.1", port, ssl=context or trusting(), server_hostname=NAME)
        return cls(*await asyncio.wait_for(streams, 10))

    @property
    def serial(self) -> int:
        shown = self.tls.getpeercert(binary_form=True)
        assert shown
        return x509.load_der_x509_certificate(shown).serial_number

    async def get(self, path: str) -> bytes:
        """The status line of the answer, whose body is read too."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: {NAME}\r\n\r\n".encode())
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        await self._reader.readexactly(int(length[16:]))
        return head.split(b"\r\n")[0]

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def shown(edge: Edge) -> int:
    """The serial number of the certificate that a new client sees."""
    connection = await Connection.open(edge)
    await connection.close()
    return connection.serial


async def until_shown(edge: Edge, issued: Issued) -> None:
    async with asyncio.timeout(10):
        while await shown(edge) != serial_of(issued):
            await asyncio.sleep(0.05)


def serial_of(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate).serial_number


class TestTls:
    async def test_carries_json_for_whoever_has_a_token(self, edge: Edge) -> None:
        """The keys that verify it come to the gateway by a way of their own."""
        answer = await edge.client.get("/v1/me", headers=edge.issuer.bearer())
        assert answer.status_code == 200
        assert edge.upstream.calls[-1][1]["x-forwarded-proto"] == "https"

    async def test_carries_native_grpc(self, edge: Edge) -> None:
        credentials = grpc.ssl_channel_credentials(AUTHORITY.pem.certificate)
        options = [("grpc.ssl_target_name_override", NAME)]
        async with grpc.aio.secure_channel(edge.address, credentials, options) as channel:
            call = CourseServiceStub(channel).ListCourses
            metadata = tuple(edge.issuer.bearer().items())
            assert not (await call(courses_pb2.ListCoursesRequest(), metadata=metadata, timeout=10)).courses

    @pytest.mark.parametrize(
        ("offered", "chosen"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)]
    )
    async def test_offers_http2_first(self, edge: Edge, offered: tuple[str, ...], chosen: str | None) -> None:
        connection = await Connection.open(edge, trusting(*offered))
        assert (connection.tls.selected_alpn_protocol(), connection.tls.version()) == (chosen, "TLSv1.3")
        await connection.close()

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
    async def test_is_of_no_version_before_1_2(self, edge: Edge) -> None:
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        connection = await Connection.open(edge, context)
        assert connection.tls.version() == "TLSv1.2"
        assert "ECDHE" in (connection.tls.cipher() or ("",))[0]
        await connection.close()
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await Connection.open(edge, context)

    @pytest.mark.parametrize(("path", "status"), [("/docs", 200), ("/v1/me", 401), ("/v1/nothing", 404)])
    async def test_is_what_browsers_are_told_to_keep_to(self, edge: Edge, path: str, status: int) -> None:
        answer = await edge.client.get(path)
        assert (answer.status_code, answer.headers["strict-transport-security"]) == (status, "max-age=31536000")

    async def test_leaves_no_port_for_plaintext(self, edge: Edge) -> None:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://{edge.address}/docs")


class TestRenewal:
    @pytest.mark.parametrize("renew", [by_link, by_names])
    async def test_is_seen_by_new_clients_and_cuts_off_no_old_ones(
        self, edge: Edge, mounted: Path, renew: Callable[[Path, Issued], None]
    ) -> None:
        old = await Connection.open(edge)
        issued = AUTHORITY.issue(NAME)
        renew(mounted, issued)
        await until_shown(edge, issued)
        assert old.serial != serial_of(issued)
        assert await old.get("/docs") == b"HTTP/1.1 200 OK"
        await old.close()

    @pytest.mark.parametrize("renew", [by_link, by_names])
    async def test_that_is_broken_leaves_the_one_before(
        self, edge: Edge, mounted: Path, renew: Callable[[Path, Issued], None]
    ) -> None:
        before = await shown(edge)
        another = AUTHORITY.issue(NAME)
        for broken in (Issued(another.certificate, AUTHORITY.issue(NAME).key), Issued(b"-", b"-"), Issued(b"", b"")):
            renew(mounted, broken)
            await asyncio.sleep(0.3)
            assert await shown(edge) == before
        renew(mounted, another)
        await until_shown(edge, another)


class TestFiles:
    """Checked before Envoy starts, which would only reset connections."""

    def written(self, folder: Path, issued: Issued) -> PublicTls:
        by_names(folder, issued)
        return PublicTls(folder / "tls.crt", folder / "tls.key")

    def test_that_can_be_used_are(self, tmp_path: Path) -> None:
        refuse_unusable(self.written(tmp_path, AUTHORITY.issue("learn.example")))

    def test_that_do_not_belong_together_are_refused(self, tmp_path: Path) -> None:
        mixed = Issued(AUTHORITY.issue(NAME).certificate, AUTHORITY.issue(NAME).key)
        with pytest.raises(ValueError, match=r"^GATEWAY_TLS_KEY is not the key of GATEWAY_TLS_CERTIFICATE"):
            refuse_unusable(self.written(tmp_path, mixed))

    def test_that_hold_something_else_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="are no certificate and plain key in PEM"):
            refuse_unusable(self.written(tmp_path, Issued(b"-", b"-")))

    def test_that_are_not_there_are_named(self, tmp_path: Path) -> None:
        found = self.written(tmp_path, AUTHORITY.issue(NAME))
        found.key.unlink()
        with pytest.raises(ValueError, match=r"^GATEWAY_TLS_KEY \(.*tls.key\) cannot be read: No such file"):
            refuse_unusable(found)

    @pytest.mark.parametrize("name", ["GATEWAY_TLS_CERTIFICATE", "GATEWAY_TLS_KEY"])
    def test_are_set_together(self, name: str) -> None:
        both = {"GATEWAY_TLS_CERTIFICATE": "/a", "GATEWAY_TLS_KEY": "/b"}
        with pytest.raises(ValueError, match=f"^{name} is not set"):
            Settings.read({variable: path for variable, path in both.items() if variable != name})

    def test_let_other_machines_in_that_are_else_refused(
        self, api: Api, written: Path, tmp_path: Path
    ) -> None:
        anywhere = {"GATEWAY_ADDRESS": "0.0.0.0:8443"}
        with pytest.raises(ValueError, match="beyond this machine plaintext is refused"):
            Settings.read(anywhere)
        files = {"GATEWAY_TLS_CERTIFICATE": str(tmp_path / "a"), "GATEWAY_TLS_KEY": str(tmp_path / "b")}
        for more in (files, {"TRUSTED_PROXIES": "1"}):
            made = envoy.configuration(api, Settings.read(anywhere | more), written)
            chain = made["static_resources"]["listeners"][0]["filter_chains"][0]
            assert ("transport_socket" in chain) is (more is files)
