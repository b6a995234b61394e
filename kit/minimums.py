"""The oldest versions of what is not locked with the code that the platform works with."""

import re

# As the lock file has it: stubs are made for it, and older runtimes lack what the servers are told to do.
GRPCIO = (1, 85)
# uuidv7(), and policies that cost nothing beside an explicit tenant.
POSTGRESQL = (18,)
# What the gateway's configuration says that older ones refuse or, worse, do not know.
ENVOY = (1, 40)


def refuse_older(name: str, found: str, oldest: tuple[int, ...]) -> None:
    """Raises RuntimeError, fit to be read by whoever starts the program, when `found` is older or no version at all."""
    numbers = re.match(r"\d+(\.\d+)*", found)
    if numbers is None or tuple(map(int, numbers[0].split("."))) < oldest:
        wanted = ".".join(map(str, oldest))
        raise RuntimeError(f"{name} {wanted} or newer is needed, and this is {found or 'of no known version'}")
