"""What all tables of the assessment service have in common."""

import kit.models


class Base(kit.models.Base):
    __abstract__ = True
    metadata = kit.models.metadata("assessment", jobs=True)
