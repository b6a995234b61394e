"""Whether this is the long run, `make proof`."""

from hypothesis import settings

PROOF = settings.get_current_profile_name() == "proof"
