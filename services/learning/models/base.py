"""What the tables of the learning service have in common."""

from kit.models import Base as KitBase
from kit.models import metadata


class Base(KitBase):
    """Base of the tables in the schema `learning`."""

    __abstract__ = True
    metadata = metadata("learning", jobs=True)
