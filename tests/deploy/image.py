"""Programs of the image, run as a container runs them: with no environment but their own."""

import asyncio
import os
import sys
from collections.abc import Mapping

from deploy.local.settings import ROOT


async def run(module: str, *arguments: str, environment: Mapping[str, str]) -> int:
    """The exit code of `python -m module`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", module, *arguments),
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT / "gen"), **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()
