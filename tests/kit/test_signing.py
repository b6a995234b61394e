"""Signatures count for what was signed, for its purpose, and from keys that are known."""

import base64
import json

import pytest

from kit.settings import SettingsError
from kit.signing import NO_KEYS, Keyring, public_keys

MINE, OTHER = Keyring(bytes(range(32))), Keyring(bytes(32))


class TestKeyring:
    def test_knows_what_it_signed_and_nothing_else(self) -> None:
        signature = MINE.sign("letters v1", b"hello")
        assert MINE.signed("letters v1", b"hello", signature)
        assert not MINE.signed("letters v1", b"hello!", signature)
        assert not MINE.signed("letters v2", b"hello", signature)
        assert not MINE.signed("letters v1", b"hello", signature[:-1])
        assert not MINE.signed("letters v1", b"hello", b"")

    def test_believes_its_own_key_and_the_trusted_ones(self) -> None:
        signature = OTHER.sign("letters v1", b"hello")
        assert not MINE.signed("letters v1", b"hello", signature)
        assert Keyring(bytes(range(32)), OTHER.public).signed("letters v1", b"hello", signature)
        assert Keyring(None, OTHER.public).signed("letters v1", b"hello", signature)
        assert not NO_KEYS.signed("letters v1", b"hello", signature)

    def test_takes_a_purpose_for_one_line(self) -> None:
        signature = MINE.sign("letters v1", b"hello\nworld")
        with pytest.raises(ValueError, match="one line"):
            MINE.signed("letters v1\nhello", b"world", signature)

    def test_signs_nothing_without_a_key(self) -> None:
        with pytest.raises(SettingsError):
            Keyring(None, MINE.public).sign("letters v1", b"hello")


class TestPublicKeys:
    def test_are_a_list_in_json(self) -> None:
        texts = [base64.urlsafe_b64encode(one).decode() for one in (*MINE.public, *OTHER.public)]
        assert public_keys("KEYS", json.dumps(texts)) == [*MINE.public, *OTHER.public]
        assert public_keys("KEYS", "") == []

    @pytest.mark.parametrize("text", ["AAAA", "{}", '["AAAA"]', "[1]"])
    def test_that_are_none_are_named(self, text: str) -> None:
        with pytest.raises(SettingsError, match="KEYS"):
            public_keys("KEYS", text)
