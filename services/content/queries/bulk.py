"""Many rows at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable, Result

from kit.db import WriteSession


async def execute_for_each(
    session: WriteSession, statement: Executable, rows: Sequence[Mapping[str, Any]]
) -> Result[Any]:
    """Executes an INSERT for all rows, without a round trip for each."""
    return await session.execute(statement, rows)  # type: ignore[arg-type]  # the session passes on what it is given
