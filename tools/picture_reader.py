"""Takes the picture of the reader page in the documentation, of a running platform with the demo school in it."""

import argparse
import asyncio
import os
import shutil
import sys
from pathlib import Path

from playwright.async_api import Page, async_playwright

TITLE = "Cánh diều của bà ngoại"


async def picture(url: str, password: str, out: Path) -> None:
    async with async_playwright() as playwright:
        # No sandbox: in a container, as root, there is none to be had.
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page(base_url=url, viewport={"width": 820, "height": 900})
        await _sign_in(page, password)
        await page.locator("#stories button").filter(has_text=TITLE).first.click()
        await page.locator("#text button.woven").nth(1).click()
        await page.locator("#explanation").filter(has_text=" ").wait_for()
        await page.screenshot(path=out)
        await browser.close()


async def _sign_in(page: Page, password: str) -> None:
    await page.goto("/read")
    await page.get_by_label("School").fill("hoa-sen")
    await page.get_by_label("E-mail").fill("mai@hoa-sen.example")
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


def main() -> None:
    arguments = argparse.ArgumentParser(prog="tools.picture_reader", description=__doc__)
    arguments.add_argument("out", type=Path, help="file to write, such as docs/images/reader.png")
    arguments.add_argument("--url", default="http://127.0.0.1:8080", help="address of the gateway")
    chosen = arguments.parse_args()
    if "DEMO_PASSWORD" not in os.environ:
        sys.exit("Set DEMO_PASSWORD to the password that make run prints.")
    asyncio.run(picture(chosen.url, os.environ["DEMO_PASSWORD"], chosen.out))


if __name__ == "__main__":
    main()
