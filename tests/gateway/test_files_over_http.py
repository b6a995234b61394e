"""Files through the real gateway: sent in one call or to a link, served whole or in parts."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import httpx
import pytest

from gateway.descriptors import Api
from gateway.envoy import write
from gateway.settings import Settings
from tests.content.conftest import Author
from tests.content.copies import full_course
from tests.content.recording import WAV, Narrator, sha256, silence, tone
from tests.stack import School, Stack, found_school, free_port

ENVOY = Path(sys.executable).parent / "envoy"
# More than the gateway takes of anything but files, and than one message of gRPC may have.
LARGE = silence(6_000_000)


@pytest.fixture(scope="module")
async def web(api: Api, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An Envoy before the stack."""
    folder, port = tmp_path_factory.mktemp("gateway"), free_port()
    environment = {
        name: value for name, value in stack.environments["content"].items() if name.endswith("_ADDRESS")
    } | {"GATEWAY_ADDRESS": f"127.0.0.1:{port}", "GATEWAY_ADMIN_ADDRESS": f"unix:{folder}/a.sock", "ACCESS_LOG": ""}
    process = started(write(api, Settings.read(environment), folder), folder / "envoy.log")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        for _ in range(100):
            with suppress(httpx.TransportError):
                if (await client.get("/healthz")).status_code == 200:
                    break
            await asyncio.sleep(0.1)
        yield client
    process.terminate()
    process.wait(10)


def started(configuration: Path, log: Path) -> "subprocess.Popen[bytes]":
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-path", str(log))
    return subprocess.Popen([ENVOY, "-c", str(configuration), *options])


@pytest.fixture(scope="module")
def narrator(school: School) -> Narrator:
    return Narrator.of(school.teacher)


def bearer(school: School) -> dict[str, str]:
    return {"authorization": f"Bearer {school.teacher.token}"}


async def link_to(narrator: Narrator, data: bytes) -> str:
    """A link that serves the file."""
    made = await narrator.create(story_id=(await narrator.story()).id)
    await narrator.upload(made.id, data)
    return str((await narrator.download(made.id)).url)


async def status_of_long_post(web: httpx.AsyncClient, path: str, authorization: str) -> int:
    """What is answered to the mere announcement of a long body."""
    reader, writer = await asyncio.open_connection(web.base_url.host, web.base_url.port)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-length: {len(LARGE)}\r\n\r\n"
    writer.write(head.encode())
    first = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return int(first.split()[1])


class TestUploadAudio:
    async def test_the_body_is_the_file_however_long(
        self, web: httpx.AsyncClient, school: School, narrator: Narrator
    ) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        sent = await web.post(
            f"/v1/audios/{made.id}/file",
            params={"sha256": sha256(LARGE), "sizeBytes": len(LARGE)},
            headers={**bearer(school), "content-type": WAV},
            content=LARGE,
        )
        assert sent.status_code == 200, sent.text
        assert (sent.json()["sizeBytes"], sent.json()["duration"]) == (str(len(LARGE)), "375s")

    async def test_takes_a_token(self, web: httpx.AsyncClient, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        assert (await web.post(f"/v1/audios/{made.id}/file", content=b"x")).status_code == 401

    async def test_other_bodies_stay_limited(self, web: httpx.AsyncClient, school: School) -> None:
        for path in ("/v1/audios", "/v1/stories"):
            assert await status_of_long_post(web, path, bearer(school)["authorization"]) == 413, path


class TestLinks:
    async def test_take_the_file_in_pieces(self, web: httpx.AsyncClient, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        link = await narrator.begin(made.id, LARGE)

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(LARGE), 777_777):
                yield LARGE[at : at + 777_777]

        put = await web.put(link, content=pieces())
        assert (put.status_code, put.json()) == (200, {"sizeBytes": str(len(LARGE))})
        assert (await narrator.complete(made.id)).sha256 == sha256(LARGE)

    async def test_take_no_more_than_was_announced(self, web: httpx.AsyncClient, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        link = await narrator.begin(made.id, tone(1))
        answer = await web.put(link, content=LARGE)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)

    async def test_serve_a_file_as_nothing_but_a_file(self, web: httpx.AsyncClient, narrator: Narrator) -> None:
        got = await web.get(await link_to(narrator, tone(1)))
        assert (got.status_code, got.content) == (200, tone(1))
        wanted = {
            "content-type": WAV,
            "content-disposition": "attachment",
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
            "accept-ranges": "bytes",
        }
        assert {name: got.headers.get(name) for name in wanted} == wanted
        assert "content-range" not in got.headers

    @pytest.mark.parametrize(
        ("asked", "first", "last"), [("bytes=0-", 0, 16043), ("bytes=100-199", 100, 199), ("bytes=-44", 16000, 16043)]
    )
    async def test_serve_parts_as_players_ask_for_them(
        self, web: httpx.AsyncClient, narrator: Narrator, asked: str, first: int, last: int
    ) -> None:
        got = await web.get(await link_to(narrator, tone(1)), headers={"range": asked})
        assert (got.status_code, got.content) == (206, tone(1)[first : last + 1])
        assert got.headers["content-range"] == f"bytes {first}-{last}/16044"

    async def test_refuse_in_json(self, web: httpx.AsyncClient, narrator: Narrator) -> None:
        link = await link_to(narrator, tone(1))
        damaged = await web.get(link[:-4], headers={"range": "bytes=0-"})
        assert (damaged.status_code, damaged.json()["details"][0]["reason"]) == (401, "INVALID_TOKEN")
        beyond = await web.get(link, headers={"range": "bytes=16044-"})
        assert (beyond.status_code, beyond.json()["code"]) == (400, 3)
        assert (await web.get(link.split("?")[0])).status_code == 400


class TestPackages:
    async def test_are_files_both_ways(self, web: httpx.AsyncClient, school: School) -> None:
        course = await full_course(Author(school.teacher))
        headers = {"authorization": f"Bearer {school.admin.token}"}
        exported = await web.post(f"/v1/courses/{course.id}:export", headers=headers, json={})
        assert exported.headers["content-type"] == "application/zip"
        # Where no other test has made words of the same terms.
        other = await found_school(school.stack, f"files{token_hex(4)}", f"guests{token_hex(4)}")
        theirs = {"authorization": f"Bearer {other.admin.token}", "content-type": "application/zip"}
        tried = await web.post("/v1/packages", params={"dryRun": "true"}, headers=theirs, content=exported.content)
        assert (tried.status_code, tried.json()["courseId"], tried.json()["stories"]) == (200, "", 3)
        made = (await web.post("/v1/packages", headers=theirs, content=exported.content)).json()
        again = await web.post(f"/v1/courses/{made['courseId']}:export", headers=theirs, json={})
        assert again.content == exported.content

    async def test_however_long_are_refused_for_what_they_are(self, web: httpx.AsyncClient, school: School) -> None:
        sent = await web.post("/v1/packages", headers=bearer(school), content=LARGE)
        assert sent.status_code == 400
        assert "was cut off, or is none" in sent.json()["message"]
