"""A client of the gateway's JSON API, as a phone would be one."""

import atexit
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx


class RestError(Exception):
    """An answer that is not a success; `status` is the HTTP status, `body` the google.rpc.Status as JSON."""

    def __init__(self, method: str, path: str, status: int, body: Any) -> None:
        super().__init__(f"{method} {path} → {status}: {body.get('message') if isinstance(body, dict) else body}")
        self.status, self.body = status, body

    @property
    def reason(self) -> str:
        """The ErrorReason, or '' when the answer names none."""
        details = self.body.get("details", []) if isinstance(self.body, dict) else []
        return next((detail["reason"] for detail in details if "reason" in detail), "")


@cache
def _connection(url: str) -> httpx.Client:
    """One pool of connections for everybody who calls this gateway."""
    client = httpx.Client(base_url=url, timeout=30)
    atexit.register(client.close)
    return client


@dataclass
class Rest:
    """Calls in one person's name, or in nobody's before the sign-in. Remembers the trace of the last call."""

    url: str
    token: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    trace_id: str = ""

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer; `RestError` for every status but 200."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        response = _connection(self.url).request(method, path, json=body, params=query or None, headers=headers)
        self.trace_id = response.headers.get("x-trace-id", "")
        answer = response.json() if response.headers.get("content-type", "").startswith("application/json") else {}
        if response.status_code != httpx.codes.OK:
            raise RestError(method, path, response.status_code, answer or response.text)
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, body if body is not None else {})

    def patch(self, path: str, body: Any) -> Any:
        return self.call("PATCH", path, body)

    def sign_in(self, tenant: str, email: str, password: str) -> "Rest":
        """A client of this person."""
        session = self.post("/v1/sessions", {"tenant": tenant, "email": email, "password": password})
        return Rest(self.url, session["accessToken"], session["user"])
