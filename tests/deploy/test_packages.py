"""What the services are made of is known, and may be used: `python -m tools.list_packages`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.list_packages import DONE, FAILED, LOCK, PackagesError, main, packages, sbom, tell_audit

# Whoever runs or changes the services owes nothing but notices.
PERMISSIVE = {"Apache-2.0", "BSD-3-Clause", "MIT", "MIT-0", "PSF-2.0"}


def audited(name: str, *vulnerabilities: str, **more: Any) -> dict[str, Any]:
    vulns = [{"id": one, "fix_versions": ["2.0"]} for one in vulnerabilities]
    return {"name": name, "version": "1.0", "vulns": vulns} | more


class TestLicences:
    def test_of_all_packages_are_known_and_permissive(self) -> None:
        named = {package.name: set(re.split(r" OR | AND ", package.licence)) for package in packages()}
        assert {name: licences for name, licences in named.items() if not licences <= PERMISSIVE} == {}

    def test_of_a_package_that_is_not_as_locked_are_not_told(self, tmp_path: Path) -> None:
        for text, said in (("grpcio==1.0.0", "and not==1.0.0"), ("no-such-package==1.0", "not installed")):
            (tmp_path / "x.lock").write_text(f"{text} \\\n    --hash=sha256:{'0' * 64}\n")
            with pytest.raises(PackagesError, match=f"{said}.*make setup"):
                packages(tmp_path / "x.lock")


class TestSbom:
    def test_has_every_locked_package_with_its_hashes(self) -> None:
        told = {one["name"]: one for one in sbom(packages())["components"]}
        locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))
        # What is for other platforms is in the lock as well.
        assert told.keys() <= locked.keys()
        assert {"grpcio", "sqlalchemy", "protobuf"} <= told.keys()
        for name, one in told.items():
            assert (one["version"], one["purl"]) == (locked[name], f"pkg:pypi/{name}@{locked[name]}")
            assert one["externalReferences"][0]["hashes"]

    def test_tells_who_needs_whom(self) -> None:
        document = sbom(packages())
        needs = {one["ref"].split("@")[0]: one["dependsOn"] for one in document["dependencies"]}
        assert any(one.startswith("pkg:pypi/mako@") for one in needs["pkg:pypi/alembic"])
        assert any(one.startswith("pkg:pypi/grpcio@") for one in needs["storyloom"])
        refs = {one["bom-ref"] for one in document["components"]}
        assert {one for found in needs.values() for one in found} <= refs

    def test_of_one_lock_is_always_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        written = []
        for _ in range(2):
            assert main(["sbom"]) == DONE
            written.append(json.loads(capsys.readouterr().out))
        assert written[0] == written[1]
        assert written[0]["serialNumber"].startswith("urn:uuid:")


class TestAudit:
    def test_fails_when_a_vulnerability_is_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert tell_audit([audited("good"), audited("bad", "CVE-2026-1")]) == FAILED
        assert "bad 1.0: CVE-2026-1, fixed in 2.0" in capsys.readouterr().out

    def test_passes_when_all_were_looked_up(self) -> None:
        assert tell_audit([audited("good"), audited("better")]) == DONE

    def test_does_not_call_well_what_it_could_not_look_up(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert tell_audit([audited("good"), audited("strange", skip_reason="not found")]) == FAILED
        assert "Not audited, because nothing is known of them: strange" in capsys.readouterr().out

    def test_says_in_a_sentence_that_there_is_nobody_to_ask(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert tell_audit([audited("one", skip_reason="x"), audited("two", skip_reason="x")]) == DONE
        assert capsys.readouterr().out.count("\n") == 1
