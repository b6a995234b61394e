"""How tools ask the gateway in one person's name."""

import argparse
import os
import sys
from collections.abc import Callable

import httpx

from deploy.rest import Rest, RestError

PASSWORD = "STORYLOOM_PASSWORD"  # noqa: S105  # the name of the variable


def parser(module: str, description: str | None, *, user: str) -> argparse.ArgumentParser:
    """The options that say who asks: unless they do, this user of the demo school."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    made.add_argument("--url", default="http://127.0.0.1:8080", help="address of the gateway")
    made.add_argument("--tenant", default="hoa-sen", help="slug of the user's tenant")
    made.add_argument("--user", default=user, help="e-mail address of the user")
    return made


def run(work: Callable[[Rest, argparse.Namespace], None], chosen: argparse.Namespace) -> None:
    """Does the work in the person's name, or ends with why it can't be done."""
    if PASSWORD not in os.environ:
        sys.exit(f"Set {PASSWORD} to the password of {chosen.user}.")
    try:
        work(Rest(chosen.url).sign_in(chosen.tenant, chosen.user, os.environ[PASSWORD]), chosen)
    except RestError as error:
        sys.exit(f"The API refuses: {error}")
    except httpx.HTTPError as error:
        sys.exit(f"The API does not answer: {error}")
