"""Where in a configuration something is, for tests that change it."""

from collections.abc import Callable
from typing import Any

from tests.gateway.edge import Configuration, http_filter, ingress

Change = Callable[[Configuration], Any]
LIST = "/storyloom.content.v1.CourseService/ListCourses"
INBOX = "/storyloom.event.v1.EventInboxService/DeliverEvents"
SIGN_IN = "/storyloom.identity.v1.SessionService/CreateSession"
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
JWT, LIMIT, BODY, LUA, CHANGES = (
    f"envoy.filters.http.{name}"
    for name in ("jwt_authn", "local_ratelimit", "body_size_limit", "lua", "header_mutation")
)


def host(configuration: Configuration) -> Configuration:
    found: Configuration = ingress(configuration)["route_config"]["virtual_hosts"][0]
    return found


def routes(configuration: Configuration) -> list[Any]:
    found: list[Any] = host(configuration)["routes"]
    return found


def forwarding(configuration: Configuration, kind: str = "content-reads") -> Configuration:
    found: Configuration = next(one for one in routes(configuration) if one["name"] == kind)
    return found


def early(configuration: Configuration) -> list[Any]:
    """What is done to headers before anybody looks at them."""
    found: list[Any] = ingress(configuration)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    return found


def named_filter(configuration: Configuration, name: str) -> Configuration:
    found: Configuration = next(one for one in ingress(configuration)["http_filters"] if one["name"] == name)
    return found


def provider(configuration: Configuration) -> Configuration:
    found: Configuration = http_filter(configuration, "jwt_authn")["providers"]["storyloom"]
    return found


def rules(configuration: Configuration) -> list[Any]:
    found: list[Any] = http_filter(configuration, "jwt_authn")["rules"]
    return found


def limit(configuration: Configuration) -> Configuration:
    return http_filter(configuration, "local_ratelimit")


def listeners(configuration: Configuration) -> list[Any]:
    found: list[Any] = configuration["static_resources"]["listeners"]
    return found


def content(configuration: Configuration) -> Configuration:
    """Its cluster."""
    found: Configuration = configuration["static_resources"]["clusters"][1]
    assert found["name"] == "content"
    return found


def said(name: str) -> Configuration:
    return {"header": {"key": name, "value": "x"}}


def without_filter(name: str) -> Change:
    def change(configuration: Configuration) -> None:
        ingress(configuration)["http_filters"].remove(named_filter(configuration, name))

    return change
