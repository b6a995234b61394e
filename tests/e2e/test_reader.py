"""The reader page in a real browser, against the running platform."""

import hashlib
import re
import shutil
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from deploy.demo import data
from deploy.demo.__main__ import publish_when_approved
from deploy.demo.authoring import request_approval
from deploy.rest import Rest
from tests.content.recording import tone
from tests.running import Running

CHROMIUM = shutil.which("chromium")
TITLE = "Cánh diều của bà ngoại"
LENGTH_SECONDS = 30.0

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # No sandbox: in a container, as root, there is none to be had.
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        await running.close()


@pytest.fixture
async def browser_page(browser: Browser, platform: Running) -> AsyncIterator[Page]:
    """A page that knows nothing of those before it."""
    async with await browser.new_context(base_url=platform.url, viewport={"width": 900, "height": 1100}) as context:
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        yield page
    assert not errors


async def sign_in(page: Page, platform: Running, name: str = "khoa") -> None:
    await page.goto("/read")
    await page.get_by_label("School").fill("hoa-sen")
    await page.get_by_label("E-mail").fill(f"{name}@hoa-sen.example")
    await page.get_by_label("Password").fill(platform.password)
    await page.get_by_role("button", name="Sign in").click()


async def open_story(page: Page, title: str) -> None:
    await page.locator("#stories button").filter(has_text=title).first.click()
    await expect(page.locator("#title")).to_have_text(title)


class TestReader:
    async def test_says_why_nobody_is_signed_in(self, browser_page: Page, platform: Running) -> None:
        await browser_page.goto("/read")
        await browser_page.get_by_label("School").fill("hoa-sen")
        await browser_page.get_by_label("E-mail").fill("nobody@hoa-sen.example")
        await browser_page.get_by_label("Password").fill("not the password")
        await browser_page.get_by_role("button", name="Sign in").click()
        await expect(browser_page.get_by_role("alert")).not_to_be_empty()
        await expect(browser_page.locator("#shelf")).to_be_hidden()

    async def test_a_woven_word_is_marked_and_explained_when_tapped(
        self, browser_page: Page, platform: Running
    ) -> None:
        await sign_in(browser_page, platform)
        await open_story(browser_page, TITLE)
        woven = browser_page.locator("#text button.woven")
        assert await woven.count() > 5
        marked, plain = woven.first, browser_page.locator("#text span").first
        ground = "element => getComputedStyle(element).backgroundColor"
        assert await marked.evaluate(ground) != await plain.evaluate(ground)
        await marked.click()
        await expect(marked).to_have_attribute("aria-expanded", "true")
        word = browser_page.locator("#word")
        await expect(word.locator("#shown")).to_have_text(await marked.inner_text())
        await expect(word.locator("#source")).not_to_be_empty()
        await expect(word.locator("#explanation")).not_to_be_empty()
        await browser_page.keyboard.press("Escape")
        await expect(word).to_be_hidden()

    async def test_what_is_shown_is_the_story_word_for_word_but_for_the_woven_ones(
        self, browser_page: Page, platform: Running
    ) -> None:
        await sign_in(browser_page, platform)
        async with browser_page.expect_response(re.compile(":render")) as answer:
            await open_story(browser_page, TITLE)
        rendered = await (await answer.value).json()
        shown = "".join(one["text"] for one in rendered["chunks"] if one["kind"] != "CHUNK_KIND_EXPLAIN")
        assert await browser_page.locator("#text").evaluate("element => element.textContent") == shown

    async def test_another_weave_and_gaps_are_a_tap_away(self, browser_page: Page, platform: Running) -> None:
        await sign_in(browser_page, platform)
        await open_story(browser_page, TITLE)
        text = browser_page.locator("#text")
        before = await text.inner_text()
        await browser_page.get_by_role("button", name="Weave anew").click()
        await expect(text).not_to_have_text(before)
        await browser_page.get_by_role("button", name="Gaps").click()
        gap = browser_page.locator("#text button.gap").first
        await expect(gap).to_have_text("____")
        await gap.click()
        await expect(browser_page.locator("#shown")).not_to_have_text("____")

    async def test_a_piece_that_was_recorded_is_heard(self, browser_page: Page, platform: Running) -> None:
        record(platform, TITLE)
        await sign_in(browser_page, platform)
        await open_story(browser_page, TITLE)
        await expect(browser_page.locator("#sound")).to_have_attribute("src", re.compile("/file"))
        await browser_page.locator("#text button.woven").nth(3).click()
        await browser_page.get_by_role("button", name="Hear it").click()
        sound = browser_page.locator("#sound")
        ended = "sound => new Promise(done => { sound.onpause = () => done(sound.currentTime) })"
        assert 0 < await sound.evaluate(ended) < LENGTH_SECONDS

    async def test_markup_in_a_story_is_shown_and_not_obeyed(self, browser_page: Page, platform: Running) -> None:
        title = "<img src=x onerror=alert(1)>"
        publish(platform, title, "Con <script>alert(1)</script> mèo & <b>chó</b>.")
        await sign_in(browser_page, platform)
        await open_story(browser_page, title)
        await expect(browser_page.locator("#text")).to_have_text("Con <script>alert(1)</script> mèo & <b>chó</b>.")

    async def test_whoever_signs_out_leaves_nothing_behind(self, browser_page: Page, platform: Running) -> None:
        await sign_in(browser_page, platform)
        await open_story(browser_page, TITLE)
        await browser_page.get_by_role("button", name="Sign out").click()
        await expect(browser_page.get_by_label("School")).to_be_visible()
        assert await browser_page.locator("#text").inner_text() == ""
        kept = "[localStorage.length, sessionStorage.length, document.cookie]"
        assert await browser_page.evaluate(kept) == [0, 0, ""]


def publish(platform: Running, title: str, text: str) -> None:
    """A story that nobody wove, published."""
    teacher, approver = platform.sign_in("lan"), platform.sign_in("minh")
    story = teacher.post("/v1/stories", {"title": title, "text": text, **data.LANGUAGES})
    approval = request_approval(teacher, story)
    approver.post(f"/v1/approvals/{approval['id']}:approve")
    publish_when_approved(teacher, story["id"])


def record(platform: Running, title: str) -> None:
    """A recording of the story, published: each piece lasts as long as the others."""
    teacher = platform.sign_in("lan")
    story = next(one for one in teacher.get("/v1/stories", pageSize=100)["stories"] if one["title"] == title)
    version = teacher.get(f"/v1/storyVersions/{story['publishedVersionId']}")
    audio = teacher.post("/v1/audios", {"storyId": story["id"], "versionId": version["id"], "title": title})
    send(teacher, audio["id"], tone(LENGTH_SECONDS))
    count = len(version["chunks"])
    moments = [LENGTH_SECONDS * number / count for number in range(count + 1)]
    cues = [f"{clock(start)} --> {clock(end)}\nx\n" for start, end in pairwise(moments)]
    captions = {"captions": "\n".join(["WEBVTT\n", *cues]), "inOrder": True}
    teacher.post(f"/v1/audios/{audio['id']}:setTimestamps", captions)
    teacher.post(f"/v1/audios/{audio['id']}:publish")


def send(teacher: Rest, audio_id: str, file: bytes) -> None:
    headers = {"authorization": f"Bearer {teacher.token}", "content-type": "audio/wav"}
    query = {"sha256": hashlib.sha256(file).hexdigest(), "sizeBytes": len(file)}
    url = f"{teacher.url}/v1/audios/{audio_id}/file"
    httpx.post(url, params=query, content=file, headers=headers).raise_for_status()


def clock(seconds: float) -> str:
    return f"00:{int(seconds // 60):02}:{seconds % 60:06.3f}"
