"""Mutual TLS over real connections: what a service starts with, who gets in, and who is taken for whom."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from deploy.certificates import Issued, make
from kit.errors import PermissionDenied, Unavailable
from kit.server import Service, run
from kit.settings import Settings, SettingsError, TlsFiles
from kit.tls import read_material
from storyloom.type.v1.errors_pb2 import ErrorReason
from tests.kit.tls import OURS, THEIRS, Witness, calling, damaged, files_of, place, reach, serving, shows
from tests.kit.toy import Toy

LONG_AGO = datetime.now(UTC) - timedelta(days=400)
EVERYTHING = ("all", "manage")


@pytest.fixture(scope="module")
async def running(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Toy, Witness]]:
    """The toy behind TLS."""
    folder = tmp_path_factory.mktemp("served")
    async with serving(toy, place(folder / "toy", OURS.issue("toy"))) as served:
        yield served


@pytest.fixture
def served(running: tuple[Toy, Witness]) -> Toy:
    return running[0]


def settings_with(**values: str) -> Settings:
    required = dict.fromkeys(("database_url", "secret_key", "service_credential", "service_keys"), "x")
    return Settings(**{"service": "content", **required, **values})  # type: ignore[arg-type]


class TestSettings:
    @pytest.mark.parametrize("given", [("tls_certificate",), ("tls_key", "tls_ca"), ("tls_ca",)], ids=str)
    def test_of_tls_are_all_there_or_none(self, given: Iterable[str]) -> None:
        with pytest.raises(SettingsError, match=r"^TLS_\w+ is not set: .* are set together or not$"):
            settings_with(**dict.fromkeys(given, "/x"))

    @pytest.mark.parametrize(
        "address", ["127.0.0.1:7101", "127.9.8.7:1", "[::1]:7101", "localhost:7101", "unix:/run/x", "unix:///run/x"]
    )
    def test_without_tls_take_loopback(self, address: str) -> None:
        assert settings_with(listen_address=address, audit_address=address).tls_files is None

    @pytest.mark.parametrize("name", ["listen_address", "identity_address", "audit_address"])
    @pytest.mark.parametrize(
        "address",
        [
            *("0.0.0.0:7101", "[::]:7101", "10.0.0.7:7101", "identity:7101", "localhost.example:7101", ":7101"),
            *("::1:7101", "dns:///localhost:7101", "ipv4:127.0.0.1:1,10.0.0.7:1", "127.0.0.1.example:1", "127.0.0.1"),
            *("2130706433:1", "unix-abstract:x", "xds:///identity", "[::ffff:10.0.0.7]:1", "127.0.0.1:1,10.0.0.7:1"),
        ],
    )
    def test_without_tls_refuse_everything_else(self, name: str, address: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name.upper()} is .* plaintext is refused, so set TLS_CERTIFICATE"):
            settings_with(**{name: address})

    def test_with_tls_take_any_address(self) -> None:
        settings = settings_with(
            listen_address="0.0.0.0:7101", audit_address="audit:7105", tls_certificate="c", tls_key="k", tls_ca="a"
        )
        assert settings.tls_files == TlsFiles(Path("c"), Path("k"), Path("a"))

    def test_that_send_plaintext_abroad_end_the_process_with_one_sentence(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in asdict(toy.settings).items():
            monkeypatch.setenv(name.upper(), str(value))
        monkeypatch.setenv("LISTEN_ADDRESS", "0.0.0.0:7102")
        with pytest.raises(SystemExit) as ended:
            run("content", lambda _: pytest.fail("nothing may be built"))
        assert str(ended.value) == (
            "content: LISTEN_ADDRESS is 0.0.0.0:7102: beyond this machine plaintext is refused, "
            "so set TLS_CERTIFICATE, TLS_KEY and TLS_CA"
        )


class TestFiles:
    @pytest.mark.parametrize(
        ("file", "what", "sentence"),
        [
            *(("tls.crt", what, "TLS_CERTIFICATE has no certificate in PEM") for what in ("garbage", "empty")),
            *(("tls.key", what, "TLS_KEY has no private key in PEM") for what in ("garbage", "empty")),
            *(("ca.crt", what, "TLS_CA has no certificate in PEM") for what in ("garbage", "empty")),
            ("tls.crt", "gone", "TLS_CERTIFICATE cannot be read"),
            ("tls.key", "gone", "TLS_KEY cannot be read"),
            ("ca.crt", "gone", "TLS_CA cannot be read"),
            ("tls.key", "another", "TLS_KEY is not the key of TLS_CERTIFICATE"),
        ],
    )
    def test_that_cannot_be_used_are_named(self, tmp_path: Path, file: str, what: str, sentence: str) -> None:
        settings = place(tmp_path, OURS.issue("toy"))
        damaged(tmp_path / file, what)
        with pytest.raises(SettingsError, match=f"^{sentence}.*{tmp_path}/{file}$|^{sentence}: {tmp_path}/{file}$"):
            read_material("toy", files_of(settings))

    @pytest.mark.parametrize(
        ("issued", "sentence"),
        [
            (OURS.issue("content"), "does not have the DNS name toy"),
            (OURS.issue("*"), "does not have the DNS name toy"),
            (THEIRS.issue("toy"), "is of no CA in TLS_CA"),
            (OURS.issue("toy", begin=LONG_AGO), "is not valid now, only from 20.* UTC"),
            (OURS.issue("toy", begin=datetime.now(UTC) + timedelta(days=1)), "is not valid now, only from 20"),
        ],
        ids=["of another", "wildcard", "other CA", "expired", "too early"],
    )
    def test_say_at_the_start_why_nobody_would_take_them(self, tmp_path: Path, issued: Issued, sentence: str) -> None:
        with pytest.raises(SettingsError, match=f"^TLS_CERTIFICATE {sentence}"):
            read_material("toy", files_of(place(tmp_path, issued)))

    def test_may_trust_several_cas(self, tmp_path: Path) -> None:
        read_material("toy", files_of(place(tmp_path, THEIRS.issue("toy"), OURS, THEIRS)))

    def test_never_show_the_key(self, tmp_path: Path) -> None:
        assert "PRIVATE" not in repr(read_material("toy", files_of(place(tmp_path, OURS.issue("toy")))))

    def test_of_another_keep_a_service_from_starting(self, toy: Toy, tmp_path: Path) -> None:
        settings = replace(toy.settings, **place(tmp_path, OURS.issue("content")))
        with pytest.raises(SettingsError, match="does not have the DNS name toy"):
            Service(settings, callers=lambda service, caller: False)

    def test_are_made_and_renewed_by_the_tool(self, tmp_path: Path) -> None:
        make(tmp_path)
        old = (tmp_path / "audit/tls.crt").read_bytes()
        make(tmp_path)
        assert (tmp_path / "audit/tls.crt").read_bytes() != old
        for process in ("identity", "content", "learning", "assessment", "audit", "gateway"):
            paths = [tmp_path / process / name for name in ("tls.crt", "tls.key", "ca.crt")]
            read_material(process, TlsFiles(*paths))
            assert {path.stat().st_mode & 0o077 for path in paths} == {0}
        assert not (tmp_path / "audit/ca.key").exists()


class TestPort:
    async def test_is_open_to_the_platform_s_own(self, served: Toy) -> None:
        assert await reach(served, shows(OURS.issue("content"))) is grpc.StatusCode.OK

    @pytest.mark.parametrize(
        "credentials",
        [
            None,
            shows(None),
            shows(THEIRS.issue("content")),
            shows(OURS.issue("content", begin=LONG_AGO)),
            shows(OURS.issue("content", begin=datetime.now(UTC) + timedelta(days=1))),
        ],
        ids=["plaintext", "no certificate", "another CA's", "expired", "not yet valid"],
    )
    async def test_is_closed_to_everybody_else(
        self, running: tuple[Toy, Witness], credentials: grpc.ChannelCredentials | None
    ) -> None:
        served, witness = running
        before = len(witness.connections)
        assert await reach(served, credentials) is grpc.StatusCode.UNAVAILABLE
        assert len(witness.connections) == before

    async def test_of_plaintext_is_not_taken_for_one_of_tls(self, toy: Toy) -> None:
        assert await reach(toy, shows(OURS.issue("content"))) is grpc.StatusCode.UNAVAILABLE


class TestCaller:
    async def test_reaches_who_it_dials(self, served: Toy, tmp_path: Path) -> None:
        async with calling(served, place(tmp_path / "content", OURS.issue("content"))) as stub:
            await stub.CountNotes(served.pb.ListNotesRequest())

    async def test_does_not_talk_to_another_at_that_address(self, served: Toy, tmp_path: Path) -> None:
        async with calling(served, place(tmp_path / "content", OURS.issue("content")), dials="identity") as stub:
            with pytest.raises(Unavailable):
                await stub.Misbehave(served.pb.Note())

    async def test_does_not_talk_to_who_is_of_another_ca(self, served: Toy) -> None:
        # The server would take its certificate: it is the server's that it refuses.
        assert await reach(served, shows(OURS.issue("content"), trusts=THEIRS)) is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize("names", [("learning",), ("gateway",), ("content.example",), ("CONTENT",)], ids=str)
    async def test_is_not_believed_over_the_certificate_of_another(
        self, served: Toy, tmp_path: Path, names: tuple[str, ...]
    ) -> None:
        async with calling(served, place(tmp_path / names[0], OURS.issue(*names))) as stub:
            with pytest.raises(PermissionDenied, match="This connection is not the service content's") as caught:
                await stub.CountNotes(served.pb.ListNotesRequest())
            assert caught.value.reason == ErrorReason.SERVICE_NOT_ALLOWED

    async def test_that_is_not_listed_gains_nothing_by_its_certificate(self, served: Toy, tmp_path: Path) -> None:
        learning = place(tmp_path / "learning", OURS.issue("learning"))
        async with calling(served, learning, service="learning") as stub:
            with pytest.raises(PermissionDenied, match="learning may not call"):
                await stub.CountNotes(served.pb.ListNotesRequest())

    async def test_is_nobody_by_its_certificate_alone(self, served: Toy) -> None:
        made = grpc.aio.secure_channel(
            served.settings.listen_address, shows(OURS.issue("content")), [("grpc.default_authority", "toy")]
        )
        async with made as channel:
            stub = served.grpc.NoteServiceStub(channel)
            for call in (stub.CountNotes(served.pb.ListNotesRequest()), stub.ListNotes(served.pb.ListNotesRequest())):
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_may_bring_a_user_who_is_judged_as_ever(self, toy: Toy, served: Toy) -> None:
        made = grpc.aio.secure_channel(
            served.settings.listen_address, shows(OURS.issue("gateway")), [("grpc.default_authority", "toy")]
        )
        codes = []
        async with made as channel:
            stub = served.grpc.NoteServiceStub(channel)
            for token in (served.grant(uuid4(), EVERYTHING), served.grant(uuid4(), ("note", "read"))):
                call = stub.CreateNote(served.pb.Note(text="x"), metadata=(("authorization", f"Bearer {token}"),))
                codes.append(await call.code())
        assert codes == [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED]
