"""Writes everything Envoy needs into one folder: its configuration, the descriptor set, the API reference.

The descriptors stay a file of their own: embedded, they would bury what a reader of envoy.yaml looks for."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gateway import openapi
from gateway.clusters import clusters
from gateway.descriptors import DESCRIPTORS, Api
from gateway.lint import differences, faults
from gateway.listeners import listeners, socket_at
from gateway.routes import PAGE_FILES
from gateway.settings import OWN_SOCKET, Settings
from gateway.tls import refuse_unusable, secrets
from kit.tls import read_material

PAGES = Path(__file__).parent
IN_MEMORY = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"
ADMIN_PATHS = ("/stats", "/healthcheck/", "/drain_listeners", "/clusters", "/server_info", "/memory", "/runtime")


def configuration(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    """The bootstrap; `files` is the absolute folder of descriptors.binpb, openapi.json and the pages."""
    admin = settings.administration(files)
    limits = {"ratelimit_enabled": 100, "ratelimit_enforced": 100}
    # The default of 100 is meant for expressions of strangers; these list our own RPCs, a few hundred of them.
    longest_expression = {"max_program_size": {"error_level": 20000, "warn_level": 20000}}
    # Spans are sent in batches; the default of five at a time would be a call to the collector for each few requests.
    batches = {"tracing": {"opentelemetry": {"min_flush_spans": 256, "flush_interval_ms": 1000}}}
    return {
        "node": {"id": "storyloom-gateway", "cluster": "storyloom"},
        "admin": {
            "address": socket_at(admin) if isinstance(admin, tuple) else _pipe(admin),
            "allow_paths": [{"exact": "/ready"}, *({"prefix": path} for path in ADMIN_PATHS)],
        },
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"storyloom": limits, "re2": longest_expression} | batches},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": _overload(),
        # For the key set, which the gateway asks itself for.
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": IN_MEMORY}}],
        "static_resources": {
            "listeners": listeners(api, settings, files),
            "clusters": clusters(settings, files),
        },
    }


def _overload() -> dict[str, Any]:
    heap = "envoy.resource_monitors.fixed_heap"
    thresholds = {"shrink_heap": 0.90, "disable_http_keepalive": 0.92, "stop_accepting_requests": 0.95}
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{MONITORS}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": 536870912,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 5000,
                },
            },
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{action}", "triggers": [{"name": heap, "threshold": {"value": used}}]}
            for action, used in thresholds.items()
        ],
    }


def _pipe(path: Path) -> dict[str, Any]:
    """A socket that only its owner reaches: no other user of the machine, and no web page."""
    return {"pipe": {"path": str(path), "mode": 0o600}}


class _Plain(yaml.SafeDumper):
    """Repeats what occurs twice instead of pointing at it: easier to read than anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def beside(api: Api, settings: Settings) -> dict[str, bytes]:
    """What Envoy reads besides its configuration, by the name of the file."""
    secret = {name: yaml.safe_dump(one, sort_keys=False).encode() for name, one in secrets(settings).items()}
    pages = {name: (PAGES / name).read_bytes() for name in PAGE_FILES}
    descriptors = {"descriptors.binpb": api.slim(), "keys.binpb": api.only(api.keys)}
    return {**descriptors, "openapi.json": openapi.text(api).encode(), **pages, **secret}


def write(api: Api, settings: Settings, out: Path) -> Path:
    """Fills the folder and returns the path of envoy.yaml in it."""
    files = out.resolve()
    files.mkdir(parents=True, exist_ok=True)
    if settings.admin is None:
        _private((files / OWN_SOCKET).parent)
    for name, text in beside(api, settings).items():
        (files / name).write_bytes(text)
    content = configuration(api, settings, files)
    _refuse("unsafe", faults(content, api))
    made = files / "envoy.yaml"
    made.unlink(missing_ok=True)
    # It holds the gateway's secret. Created with its final mode: at no moment can another user open it.
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out_file:
        out_file.write(_text(content))
    return made


def _text(content: Any) -> bytes:
    found: bytes = yaml.dump(content, Dumper=_Plain, sort_keys=False, width=120, encoding="ascii")
    return found


def _private(folder: Path) -> None:
    """Whoever connects to the administration may end limits: the way there is its owner's alone."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)


def check(api: Api, settings: Settings, made: Path) -> None:
    """ValueError says where the file, or one of those beside it, is not what these settings make of the protos."""
    files = made.resolve().parent
    changed = (name for name, text in beside(api, settings).items() if (files / name).read_bytes() != text)
    _refuse("not that of these settings", (f"{name} is another" for name in changed))
    text = made.read_bytes()
    found = yaml.safe_load(text)
    _refuse("not that of these settings", differences(found, configuration(api, settings, files)))
    # Envoy reads another YAML than we: where lines end, what `<<` is, which words are numbers. In what is written here
    # the two agree.
    _refuse("not that of these settings", [] if text == _text(found) else ["it is written in another way"])
    _refuse("unsafe", faults(found, api))


def _refuse(what: str, found: Iterable[str]) -> None:
    if told := "; ".join(found):
        raise ValueError(f"the configuration is {what}: {told}")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="gateway.envoy", description=__doc__)
    wanted = arguments.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--out", type=Path, help="folder to write envoy.yaml and its files into")
    wanted.add_argument("--check", type=Path, metavar="FILE", help="an envoy.yaml that somebody may have changed")
    arguments.add_argument("--descriptors", type=Path, default=DESCRIPTORS, help="descriptor set of the protos")
    chosen = arguments.parse_args()
    try:
        api, settings = Api.load(chosen.descriptors), Settings.read(os.environ)
        if chosen.check:
            check(api, settings, chosen.check)
            return
        if settings.tls is not None:
            read_material("gateway", settings.tls)
        if settings.public_tls is not None:
            refuse_unusable(settings.public_tls)
        print(write(api, settings, chosen.out))
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"gateway: {error}")


if __name__ == "__main__":
    main()
