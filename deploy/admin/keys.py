"""The keys that sign access tokens."""

import argparse
from collections.abc import Iterator
from typing import Any

from deploy.admin.client import Client
from storyloom.identity.v1.signing_keys_pb2 import RotateSigningKeyRequest
from storyloom.identity.v1.signing_keys_pb2_grpc import SigningKeyServiceStub

LINE = "{id} is published, and signs from {signs} on"


def rotate(client: Client, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What was signed before stays good: nobody has to sign in anew."""
    key = client.call(client.stub(SigningKeyServiceStub).RotateSigningKey, RotateSigningKeyRequest())
    yield {"id": key.id, "signs": f"{key.sign_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"}
