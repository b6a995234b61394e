"""HTTP/2 written by hand, for what no gRPC library would send."""

import socket
from contextlib import suppress


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_by_hand(address: str, path: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    """A unary call of an empty message with headers that no gRPC library sends; returns what comes back."""
    host, _, port = address.rpartition(":")
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"toy")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *headers]
    block = b"".join(literal(*one) for one in fields)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5))
        )
        connection.settimeout(1.0)
        received = b""
        with suppress(TimeoutError):
            while data := connection.recv(65536):
                received += data
                if b"grpc-status" in received:
                    break
    return received
