"""`python -m deploy.admin`: what operators do, through the API, in their own name."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.admin import keys, operations, tenants
from deploy.admin.client import PLATFORM, Client
from deploy.admin.operations import Failed, Row
from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.errors import RunError
from deploy.local.settings import read_settings
from kit.settings import SERVICES
from tools.signing_in import PASSWORD, UsageError, read_password

DONE, FAILED, REFUSED = 0, 1, 2
EPILOG = f"""\
The password comes from --password-file, from the environment variable {PASSWORD}, or is asked for.
Exit status: 0 done; 1 the platform refused, or is not as it should be; 2 it could not be tried; 130 interrupted.
`jobs run` has that of the job runner besides: 3 when the job is paused.
"""
Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*names: str, **how: Any) -> Option:
    return names, how


SLUG, EMAIL = option("slug", help="slug of the tenant"), option("--email", required=True, help="e-mail address")
IN_TENANT = option("--in", dest="slug", default=PLATFORM, help="slug of the tenant; default: the platform's own")
RECIPIENT = option("--to", dest="recipient", default="", help="age recipient who opens it; default: not encrypted")
SERVICE = option("service", choices=SERVICES)
ONE_OR_ALL = option("service", choices=SERVICES, nargs="?", help="default: all of them")
CONSUMER = option("--consumer", choices=SERVICES, default="", help="only events for this service")
INVITATION = "  {email} chooses a password with this invitation, shown once, until {expires}:\n  {invitation}"
TENANT = "{slug:<24} {status:<10} {id}  {name}"


@dataclass(frozen=True, slots=True)
class Command:
    """One act: what it is called, what it takes, how one of its rows is told, and what is said when there is none."""

    name: str
    doc: str
    run: Callable[[Client, argparse.Namespace], Iterator[Row]]
    line: str
    options: tuple[Option, ...] = ()
    nothing: str = ""
    signs_in: bool = True


COMMANDS = (
    Command(
        "tenants list",
        "list the tenants, newest first",
        tenants.listed,
        TENANT,
        (
            option("--query", default="", help="only those whose slug or name begins so"),
            option("--status", choices=("active", "suspended")),
        ),
        "no tenants",
    ),
    Command(
        "tenants create",
        "create a tenant and invite its first administrator",
        tenants.create,
        f"{TENANT}\n{INVITATION}",
        (
            SLUG,
            option("name", help="name shown to users"),
            EMAIL,
            option("--display-name", required=True, help="name of the administrator"),
            option("--hours", type=int, default=7 * 24, help="how long the invitation works; default 7 days"),
        ),
    ),
    Command("tenants suspend", "refuse a tenant's users everywhere; its data stay", tenants.suspend, TENANT, (SLUG,)),
    Command("tenants resume", "end the suspension of a tenant", tenants.resume, TENANT, (SLUG,)),
    Command(
        "tenants export",
        "write all that a tenant has into a file: rows, recordings, audit log",
        tenants.take_out,
        tenants.TAKEN_OUT,
        (SLUG, option("--out", type=Path, required=True, help="the file, which must not be there"), RECIPIENT),
    ),
    Command(
        "tenants import",
        "bring in the tenant of such a file",
        tenants.bring_in,
        tenants.BROUGHT_IN,
        (
            option("file", type=Path, help="what `tenants export` wrote"),
            option("--identity", type=Path, help="file of the age identity that opens it"),
            option("--slug", default="", help="another slug, if its own is taken here"),
            option("--replace", action="store_true", help="put back a tenant that is here, and suspended"),
        ),
    ),
    Command(
        "users reset-password",
        "invite a user to choose another password; until then the old one works",
        tenants.reset_password,
        INVITATION.strip(),
        (EMAIL, IN_TENANT, option("--hours", type=int, default=24, help="how long the invitation works; default 24")),
    ),
    Command("keys rotate", "sign access tokens with a new key as soon as everybody knows it", keys.rotate, keys.LINE),
    Command(
        "events list",
        "list the parked events of a service, oldest first",
        operations.parked,
        "{id}  to {consumer:<10} {aggregate_type} {aggregate_id}  {attempts} tries, parked {park_time}",
        (SERVICE, CONSUMER),
        "nothing is parked",
    ),
    Command(
        "events replay",
        "have a service's parked events tried again",
        operations.replay,
        "{service}: {replayed} tried again",
        (SERVICE, CONSUMER, option("--event", default="", help="id of the only one")),
    ),
    Command(
        "outbox",
        "show how many events wait to be delivered, and since when",
        operations.outboxes,
        "{service:<10} to {consumer:<10} {waiting:>7} wait, {parked:>5} of them parked  {oldest}",
        (ONE_OR_ALL,),
        "nothing waits",
    ),
    *(
        Command(f"jobs {verb}", doc, operations.jobs, "", (SERVICE, *more))
        for verb, doc, more in (
            ("list", "tell what jobs a service has, and how far they are", ()),
            ("run", "begin a job or go on with it", (option("job"),)),
            ("pause", "stop a job after the batch at hand", (option("job"),)),
            ("abort", "stop a job, and begin anew when it is run again", (option("job"),)),
        )
    ),
    Command("health", "ask every service and the gateway", operations.health, "{name:<11} {status}", signs_in=False),
    Command(
        "audit tail",
        "show the newest entries of the audit log",
        operations.tail,
        "{occur_time:<27} {action:<18} {entity_type:<16} {entity_id}  by {who}",
        (
            IN_TENANT,
            option("-n", "--lines", type=int, default=10, help="how many; default 10, at most 100"),
            option("-f", "--follow", action="store_true", help="go on with what comes after them"),
            option("--action", default="", help="only this action"),
            option("--type", default="", help="only entries about this kind of resource"),
        ),
        "no entries",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    client = None
    try:
        client = client_of(asked)
        tell(asked, asked.command.run(client, asked))
    except Failed as error:
        complain(str(error))
        return error.status
    except (UsageError, RunError, OSError) as error:
        complain(str(error))
        return REFUSED
    except grpc.RpcError as error:
        complain(f"{error.code().name}: {error.details()}")
        return FAILED
    except KeyboardInterrupt:
        return 130
    finally:
        if client is not None:
            client.close()
    return DONE


def client_of(asked: argparse.Namespace) -> Client:
    """To the services themselves, or to the one address that was given; signed in, if that is needed."""
    own = {name: str(first) for name, (first, *_) in read_settings(os.environ).services.items()}
    client = Client(dict.fromkeys(own, asked.server) if asked.server else own, asked.ca)
    if asked.command.signs_in or asked.server:
        client.sign_in(asked.user, read_password(asked.user, asked.password_file))
    return client


def tell(asked: argparse.Namespace, rows: Iterator[Row]) -> None:
    command, told = asked.command, False
    for row in rows:
        told = True
        print(json.dumps(row, ensure_ascii=False) if asked.json else command.line.format(**row), flush=True)
    if not told and not asked.json:
        complain(command.nothing)


def complain(message: str) -> None:
    if message:
        print(f"admin: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m deploy.admin",
        description="What operators do to a running Storyloom. Every act is authorized by the services, and in their"
        " audit log.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    groups: dict[str, Any] = {"": made.add_subparsers(required=True, metavar="COMMAND")}
    common = common_options()
    for command in COMMANDS:
        group, _, verb = command.name.rpartition(" ")
        if group not in groups:
            one = groups[""].add_parser(group, help=f"{group}: see `{group} --help`")
            groups[group] = one.add_subparsers(required=True, metavar="VERB")
        leaf = groups[group].add_parser(verb, help=command.doc, parents=[common], allow_abbrev=False)
        leaf.set_defaults(command=command, verb=verb)
        for names, how in command.options:
            leaf.add_argument(*names, **how)
    return made


def common_options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    shared = made.add_argument_group("every command")
    user = os.environ.get("PLATFORM_ADMIN_EMAIL") or PLATFORM_ADMIN
    shared.add_argument("--user", default=user, help=f"platform administrator who signs in; default {user}")
    shared.add_argument("--password-file", type=Path, help="file whose first line is the password; - for stdin")
    shared.add_argument("--server", help="address of a gateway; default: the services on this machine")
    shared.add_argument("--ca", type=Path, help="its certificate authority (PEM), unless it is on this machine")
    shared.add_argument("--json", action="store_true", help="a JSON object for each row")
    return made


if __name__ == "__main__":
    sys.exit(main())
