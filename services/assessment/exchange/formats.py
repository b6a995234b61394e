"""The formats that there are."""

from collections.abc import Mapping

from services.assessment.exchange import gift, moodle, qti
from services.assessment.exchange.drafts import Format

# In the order in which a file is asked for: what says least about itself comes last.
FORMATS: Mapping[str, Format] = {"qti": qti, "moodle_xml": moodle, "gift": gift}


def recognise(data: bytes) -> str:
    """The name of the format that a file seems to be in, or an empty text."""
    return next((name for name, one in FORMATS.items() if one.recognises(data)), "")
