"""Requests made at random from the published document: whatever they are, the answer is not a server's fault."""

import secrets
import subprocess
import sys
from pathlib import Path

from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.secrets import read_secrets
from deploy.rest import Rest
from tests.profile import PROOF
from tests.running import Running

EXAMPLES = "60" if PROOF else "2"
# Some of them would end the session that the others are made with, and one never ends.
LEFT_OUT = r"signOut|changePassword|deactivate|DELETE /v1/users|auditLogs:watch"


def new_school(platform: Running) -> Rest:
    """The administrator of a tenant of its own: what is written at random must not change the people of other tests."""
    password = read_secrets(platform.settings.directory / "secrets.env")["PLATFORM_ADMIN_PASSWORD"]
    root = Rest(platform.url).sign_in("platform", PLATFORM_ADMIN, password)
    slug, email = f"school-{secrets.token_hex(4)}", "admin@random.example"
    administrator = {"email": email, "displayName": "Admin", "password": password}
    root.post("/v1/tenants", {"tenant": {"slug": slug, "name": slug}, "administrator": administrator})
    return Rest(platform.url).sign_in(slug, email, password)


class TestEveryOperation:
    def test_survives_what_its_schema_allows_and_what_it_does_not(self, platform: Running, tmp_path: Path) -> None:
        token = new_school(platform).token
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"{platform.url}/openapi.json"]
        options = ["--url", platform.url, "-H", f"Authorization: Bearer {token}", "--exclude-path-regex", LEFT_OUT]
        bounds = ["--phases", "fuzzing", "--max-examples", EXAMPLES, "--workers", "2", "-c", "not_a_server_error"]
        run = subprocess.run(
            [*command, *options, *bounds, "--continue-on-failure"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3000 if PROOF else 100,
            check=False,
        )
        assert "Server error" not in run.stdout, run.stdout
        assert "generated" in run.stdout, run.stdout
