"""How long whoever fails waits before the next attempt, so that nobody can make anybody else wait."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Backoff:
    """After `free` failures each further attempt waits: `first`, then twice as long each time, at most `longest`.

    Failures count until `forgotten_after` has passed without another.
    """

    free: int
    first: timedelta
    longest: timedelta
    forgotten_after: timedelta

    def after_failure(self, failures: int, last: datetime, now: datetime) -> tuple[int, datetime]:
        """The new number of failures, and until when the next attempt is refused."""
        count = 1 if now - last > self.forgotten_after else failures + 1
        if count < self.free:
            return count, now
        # Beyond some twenty doublings every delay is the longest, and a timedelta would overflow.
        return count, now + min(self.first * 2 ** min(count - self.free, 20), self.longest)


# Whoever fails again and again for one account from one address waits ever longer there, and nobody else does: the
# account's owner, at another address, cannot be locked out, and at the same one waits half a minute at most. Many
# accounts tried from one address are slowed by the second.
ACCOUNT_AT_ADDRESS = Backoff(5, timedelta(seconds=1), timedelta(seconds=30), timedelta(hours=1))
ADDRESS = Backoff(100, timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=15))
# A device on which the account's owner signed in before has a count of its own: nobody else can make it wait, not even
# somebody at the same address who never stops. Whoever steals it guesses no faster than without it.
DEVICE = ACCOUNT_AT_ADDRESS


def refused_until(account: Any, address: Any) -> datetime | None:
    """Until when the next attempt is refused, by the rows (or None) of the account at this address and of the address.

    The address's delay counts from the account's own last failure: who shares an address with an attacker, a whole
    school maybe, is refused nothing while nobody fails for their account, and no attacker can renew it for all at once.
    """
    if account is None:
        return None
    delay = address.blocked_until - address.last_failed_at if address else timedelta()
    until: datetime = max(account.blocked_until, account.last_failed_at + delay)
    return until
