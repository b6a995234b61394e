"""Tokens: what is accepted, for how long, and what asking for keys costs."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OKPKey

from kit.auth import KEYS_FRESH_SECONDS, ServiceCredential, ServiceVerifier, TokenVerifier
from kit.errors import DeadlineExceeded, StoryloomError, Unauthenticated, Unavailable

ISSUER, AUDIENCE = "https://storyloom.example", "storyloom"


class Clock:
    """Stands in for the `time` module: time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Identity:
    """Publishes keys, counts who asks, and is down when the test says so."""

    def __init__(self, *names: str) -> None:
        self.keys = {name: OKPKey.generate_key("Ed25519", parameters={"kid": name}) for name in names}
        self.asked = 0
        self.failure: StoryloomError | None = None

    async def publish(self) -> Mapping[str, Any]:
        self.asked += 1
        await asyncio.sleep(0.001)
        if self.failure:
            raise self.failure
        return {"keys": [key.as_dict(private=False) for key in self.keys.values()]}

    def rotate(self, name: str) -> None:
        self.keys = {name: OKPKey.generate_key("Ed25519", parameters={"kid": name})}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("kit.auth.time", made)
    return made


@pytest.fixture
def identity() -> Identity:
    return Identity("k1")


@pytest.fixture
def verifier(clock: Clock, identity: Identity) -> TokenVerifier:
    return TokenVerifier(identity.publish, issuer=ISSUER, audience=AUDIENCE)


def body(clock: Clock, **claims: Any) -> dict[str, Any]:
    ids = {"sub": str(uuid4()), "tid": str(uuid4()), "sid": str(uuid4())}
    return {"iss": ISSUER, "aud": AUDIENCE, "exp": int(clock.now) + 600} | ids | claims


def token(clock: Clock, key: OKPKey, kid: str = "", **claims: Any) -> str:
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": kid or key.kid}
    return jwt.encode(header, body(clock, **claims), key, algorithms=["EdDSA"])


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class TestRemembering:
    async def test_verifies_with_the_published_key(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        user = uuid4()
        claims = await verifier.verify(token(clock, identity.keys["k1"], sub=str(user)))
        assert (claims.user_id, claims.expires) == (user, clock.now + 600)

    async def test_knows_a_token_again_without_its_key(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        one = token(clock, identity.keys["k1"])
        first = await verifier.verify(one)
        identity.rotate("k2")
        clock.now += KEYS_FRESH_SECONDS + 1
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(clock, OKPKey.generate_key("Ed25519", parameters={"kid": "k1"})))
        assert await verifier.verify(one) == first

    async def test_a_remembered_token_still_expires(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        one = token(clock, identity.keys["k1"])
        await verifier.verify(one)
        clock.now += 604
        await verifier.verify(one)
        clock.now += 2
        for _ in range(2):
            with pytest.raises(Unauthenticated, match="expired"):
                await verifier.verify(one)

    async def test_remembers_no_more_than_it_may(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kit.auth.REMEMBERED_TOKENS", 3)
        for _ in range(6):
            await verifier.verify(token(clock, identity.keys["k1"]))
        assert len(verifier._remembered) == 3


class TestKeys:
    async def test_a_burst_at_the_start_asks_once_and_is_accepted(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        tokens = [token(clock, identity.keys["k1"]) for _ in range(20)]
        assert len(await asyncio.gather(*map(verifier.verify, tokens))) == 20
        assert identity.asked == 1

    async def test_a_new_key_is_asked_for(self, verifier: TokenVerifier, clock: Clock, identity: Identity) -> None:
        await verifier.verify(token(clock, identity.keys["k1"]))
        identity.rotate("k2")
        clock.now += 1.1
        await verifier.verify(token(clock, identity.keys["k2"]))
        assert identity.asked == 2

    @pytest.mark.parametrize("down", [False, True])
    async def test_a_flood_of_forged_tokens_asks_once_a_second(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity, down: bool
    ) -> None:
        await verifier.verify(token(clock, identity.keys["k1"]))
        identity.failure = Unavailable("down") if down else None
        forger = OKPKey.generate_key("Ed25519", parameters={"kid": "mine"})
        for second in range(3):
            clock.now += 1.1
            forged = [verifier.verify(token(clock, forger)) for _ in range(30)]
            refusals = await asyncio.gather(*forged, return_exceptions=True)
            assert {type(one) for one in refusals} == {Unavailable if down else Unauthenticated}
            assert identity.asked == 2 + second

    @pytest.mark.parametrize("failure", [Unavailable("down"), DeadlineExceeded("silent")])
    async def test_keys_are_kept_while_identity_does_not_answer(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity, failure: StoryloomError
    ) -> None:
        await verifier.verify(token(clock, identity.keys["k1"]))
        identity.failure = failure
        clock.now += 10 * KEYS_FRESH_SECONDS
        await verifier.verify(token(clock, identity.keys["k1"]))
        with pytest.raises(Unavailable):
            await verifier.verify(token(clock, OKPKey.generate_key("Ed25519", parameters={"kid": "k2"})))

    async def test_a_key_that_was_withdrawn_is_refused_within_its_freshness(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        old = identity.keys["k1"]
        await verifier.verify(token(clock, old))
        identity.rotate("k2")
        clock.now += KEYS_FRESH_SECONDS + 1
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(clock, old))

    async def test_recovers_when_identity_does(self, verifier: TokenVerifier, clock: Clock, identity: Identity) -> None:
        identity.failure = Unavailable("down")
        with pytest.raises(Unavailable):
            await verifier.verify(token(clock, identity.keys["k1"]))
        identity.failure = None
        clock.now += 1.1
        await verifier.verify(token(clock, identity.keys["k1"]))

    async def test_a_call_that_gives_up_leaves_the_others_their_keys(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        calls = [asyncio.create_task(verifier.verify(token(clock, identity.keys["k1"]))) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        clock.now += 1.1
        assert len([one for one in await asyncio.gather(*calls, return_exceptions=True) if one]) == 3
        assert all(task.exception() is None for task in calls[1:])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=3,
)
HEADERS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {},
        optional={
            "alg": st.one_of(JSON, st.sampled_from(["EdDSA", "Ed25519", "none", "HS256"])),
            "kid": st.one_of(JSON, st.just("k1")),
            "typ": st.one_of(JSON, st.just("at+jwt")),
            "crit": JSON,
            "b64": JSON,
            "jwk": JSON,
        },
    ),
)


class TestForgery:
    async def test_refuses_alg_none(self, verifier: TokenVerifier, clock: Clock) -> None:
        for algorithm in ("none", "None", "NONE", ""):
            header = part({"alg": algorithm, "typ": "at+jwt", "kid": "k1"})
            for signature in ("", part(b"x" * 64)):
                with pytest.raises(Unauthenticated):
                    await verifier.verify(f"{header}.{part(body(clock))}.{signature}")

    async def test_refuses_a_mac_made_with_the_public_key(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        key = identity.keys["k1"]
        public = key.as_dict(private=False)
        secrets = [
            key.as_pem(private=False),
            key.as_der(private=False),
            json.dumps(public).encode(),
            str(public["x"]).encode(),
            base64.urlsafe_b64decode(str(public["x"]) + "="),
        ]
        signed = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'k1'})}.{part(body(clock))}"
        for secret in secrets:
            signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            with pytest.raises(Unauthenticated):
                await verifier.verify(f"{signed}.{part(signature)}")

    async def test_refuses_a_payload_that_was_changed(
        self, verifier: TokenVerifier, clock: Clock, identity: Identity
    ) -> None:
        one = token(clock, identity.keys["k1"])
        await verifier.verify(one)
        header, payload, signature = one.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        for name in claims:
            changed = part(claims | {name: str(UUID(int=0))})
            with pytest.raises(Unauthenticated):
                await verifier.verify(f"{header}.{changed}.{signature}")

    async def test_refuses_another_key_under_the_published_name(self, verifier: TokenVerifier, clock: Clock) -> None:
        forger = OKPKey.generate_key("Ed25519", parameters={"kid": "k1"})
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(clock, forger))

    async def test_refuses_a_key_that_the_token_brings_along(self, verifier: TokenVerifier, clock: Clock) -> None:
        forger = OKPKey.generate_key("Ed25519", parameters={"kid": "k1"})
        header = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1", "jwk": forger.as_dict(private=False)}
        with pytest.raises(Unauthenticated):
            await verifier.verify(jwt.encode(header, body(clock), forger, algorithms=["EdDSA"]))

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(header=HEADERS, payload=JSON)
    async def test_whatever_the_header_says_is_refused_and_nothing_breaks(
        self, verifier: TokenVerifier, identity: Identity, header: Any, payload: Any
    ) -> None:
        forged = f"{part(header)}.{part(payload)}.{part(b'x' * 64)}"
        with pytest.raises(Unauthenticated):
            await verifier.verify(forged)
        public = {"keys": [key.as_dict(private=False) for key in identity.keys.values()]}
        with pytest.raises(Unauthenticated):
            ServiceVerifier("learning", json.dumps(public)).verify(forged)


class TestServices:
    @pytest.fixture
    def services(self) -> Identity:
        return Identity("content", "audit")

    @pytest.fixture
    def verifier(self, services: Identity) -> ServiceVerifier:
        public = {"keys": [key.as_dict(private=False) for key in services.keys.values()]}
        return ServiceVerifier("learning", json.dumps(public))

    def credential(self, services: Identity, name: str, key: str = "") -> ServiceCredential:
        return ServiceCredential(name, json.dumps(services.keys[key or name].as_dict(private=True)))

    async def test_names_the_service_that_signed(
        self, verifier: ServiceVerifier, services: Identity, clock: Clock
    ) -> None:
        for name in ("content", "audit"):
            assert verifier.verify(self.credential(services, name).token("learning")) == name

    async def test_refuses_one_service_in_the_name_of_another(
        self, verifier: ServiceVerifier, services: Identity, clock: Clock
    ) -> None:
        with pytest.raises(Unauthenticated):
            verifier.verify(self.credential(services, "content", key="audit").token("learning"))

    @pytest.mark.parametrize(
        ("header", "claims"),
        [
            ({"kid": "audit"}, {"iss": "content"}),
            ({"typ": "at+jwt"}, {}),
            ({"typ": None}, {}),
            ({"kid": None}, {}),
            ({}, {"aud": "storyloom"}),
            ({}, {"aud": "content"}),
            ({}, {"aud": None}),
            ({}, {"exp": 1}),
            ({}, {"exp": None}),
            ({}, {"exp": 4_000_000_000}),
            ({}, {"exp": float("inf")}),
            ({}, {"iss": None}),
            ({}, {"iss": ["audit"]}),
        ],
    )
    async def test_refuses_a_credential_with_a_wrong(
        self,
        verifier: ServiceVerifier,
        services: Identity,
        clock: Clock,
        header: dict[str, Any],
        claims: dict[str, Any],
    ) -> None:
        head = {"alg": "Ed25519", "typ": "service+jwt", "kid": "audit"} | header
        said = {"iss": "audit", "aud": "learning", "exp": int(clock.now) + 60} | claims
        signed = jwt.encode(
            {k: v for k, v in head.items() if v is not None},
            {k: v for k, v in said.items() if v is not None},
            services.keys["audit"],
            algorithms=["Ed25519"],
        )
        with pytest.raises(Unauthenticated):
            verifier.verify(signed)

    async def test_a_credential_is_renewed_before_it_ends(
        self, verifier: ServiceVerifier, services: Identity, clock: Clock
    ) -> None:
        credential = self.credential(services, "content")
        first = credential.token("learning")
        clock.now += 239
        assert credential.token("learning") == first
        clock.now += 2
        second = credential.token("learning")
        assert second != first
        clock.now += 66
        assert verifier.verify(second) == "content"
        with pytest.raises(Unauthenticated):
            verifier.verify(first)

    async def test_a_remembered_credential_still_expires(
        self, verifier: ServiceVerifier, services: Identity, clock: Clock
    ) -> None:
        one = self.credential(services, "content").token("learning")
        verifier.verify(one)
        clock.now += 306
        with pytest.raises(Unauthenticated, match="expired"):
            verifier.verify(one)
