"""`python -m deploy.local.bootstrap`: makes the database, its roles and schemas, as the server's administrator."""

import asyncio
import json
import os

from kit.migrations import bootstrap

if __name__ == "__main__":
    asyncio.run(bootstrap(os.environ["ADMIN_DATABASE_URL"], json.loads(os.environ["ROLE_PASSWORDS"])))
