"""How command line tools reach a service and sign in to it."""

import getpass
import os
import sys
import warnings
from pathlib import Path

import grpc

from kit.settings import is_loopback
from storyloom.identity.v1.sessions_pb2 import CreateSessionRequest, Session
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub

PASSWORD = "STORYLOOM_PASSWORD"  # noqa: S105  # the name of the variable
LONGEST_PASSWORD = 4096
SECONDS = 30


class UsageError(Exception):
    """What was asked for cannot be done; the message says why."""


def channel_to(server: str, ca: Path | None) -> grpc.Channel:
    """Plaintext carries the password, so it stays on this machine."""
    if ca is not None:
        return grpc.secure_channel(server, grpc.ssl_channel_credentials(ca.read_bytes()))
    if not is_loopback(server):
        raise UsageError(f"{server} is not on this machine: name the server's certificate authority with --ca")
    # A proxy in the environment is for the outside world; it would be told the password.
    return grpc.insecure_channel(server, options=(("grpc.enable_http_proxy", 0),))


def read_password(user: str, file: Path | None = None) -> str:
    """From the first line of a file (`-` is standard input), else from the environment, else from whoever sits there.

    Never from an argument: everybody on the machine can see those.
    """
    if file is None:
        return os.environ.get(PASSWORD) or _asked(user)
    if str(file) == "-":
        line = sys.stdin.readline(LONGEST_PASSWORD)
    else:
        with file.open(encoding="utf-8") as opened:
            line = opened.readline(LONGEST_PASSWORD)
    if not (password := line.rstrip("\r\n")):
        raise UsageError("there is no password in the first line")
    return password


def _asked(user: str) -> str:
    try:
        # Where it cannot be hidden it is not asked for.
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"Password of {user}: ")
    except (EOFError, getpass.GetPassWarning) as error:
        raise UsageError(f"there is no terminal to ask for the password of {user}: set {PASSWORD}") from error


def sign_in(channel: grpc.Channel, tenant: str, user: str, password: str) -> Session:
    """A session of this user of the identity service, or of a gateway in front of it."""
    request = CreateSessionRequest(tenant=tenant, email=user, password=password)
    session: Session = SessionServiceStub(channel).CreateSession(request, timeout=SECONDS)
    return session
