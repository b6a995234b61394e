"""What the services are made of, as requirements.lock has it: `python -m tools.list_packages sbom|licences|audit`."""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
DONE, FAILED = 0, 1
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# What authors write who do not write an SPDX expression. "BSD License" alone does not say which.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0": "MPL-2.0",
}
CLASSIFIER = "License :: OSI Approved :: "


class PackagesError(Exception):
    """The list cannot be made; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Package:
    """One locked package as it is installed; `hashes` are those of the files that may be installed (SHA-256)."""

    name: str
    version: str
    licence: str
    hashes: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def packages(lock: Path = LOCK) -> list[Package]:
    """Those that are for this platform, by name; PackagesError when what is installed is not what is locked."""
    locked = [
        (requirement, hashes)
        for requirement, hashes in requirements(lock.read_text())
        if requirement.marker is None or requirement.marker.evaluate()
    ]
    names = {canonicalize_name(requirement.name) for requirement, _ in locked}
    return sorted((installed(*one, names) for one in locked), key=lambda package: package.name)


def requirements(text: str) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    for entry in re.split(r"\n(?=\S)", text.strip()):
        head, *_ = entry.partition(" \\\n")
        yield Requirement(head), tuple(sorted(HASH.findall(entry)))


def installed(requirement: Requirement, hashes: tuple[str, ...], names: Set[str]) -> Package:
    name = canonicalize_name(requirement.name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise PackagesError(f"{requirement.name} is locked but not installed: run `make setup`.") from None
    if not requirement.specifier.contains(found.version, prereleases=True):
        raise PackagesError(f"{name} {found.version} is installed, and not{requirement.specifier}: run `make setup`.")
    needs = {canonicalize_name(Requirement(one).name) for one in found.requires or ()}
    return Package(name, found.version, licence_of(found), hashes, tuple(sorted(needs & names)))


def licence_of(found: Distribution) -> str:
    """An SPDX expression, as far as the package says what it is under; '' when it does not."""
    told = found.metadata.json
    if expression := told.get("license_expression"):
        return str(expression)
    named = SPDX.get(str(told.get("license", "")).strip(), "")
    classifiers = (str(one).removeprefix(CLASSIFIER) for one in told.get("classifier", ()))
    # Two of them are a choice, which the other field has no way to say.
    return " OR ".join(sorted({SPDX[one] for one in classifiers if one in SPDX})) or named


def sbom(found: Sequence[Package]) -> dict[str, Any]:
    """CycloneDX 1.6. The same lock makes the same document, so it has no time."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    refs = {package.name: package.purl for package in found}
    own = {"type": "application", "bom-ref": project["name"], "name": project["name"], "version": project["version"]}
    direct = [line.split(";")[0] for line in (ROOT / "requirements.in").read_text().splitlines() if line[:1].isalpha()]
    needs = sorted(refs[name] for name in {canonicalize_name(Requirement(one).name) for one in direct} & refs.keys())
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own | {"licenses": [{"expression": project["license"]}]}},
        "components": [component(package) for package in found],
        "dependencies": [
            {"ref": project["name"], "dependsOn": needs},
            *({"ref": one.purl, "dependsOn": [refs[name] for name in one.needs]} for one in found),
        ],
    }
    return {"serialNumber": uuid5(NAMESPACE_URL, json.dumps(document)).urn} | document


def component(package: Package) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": one} for one in package.hashes]
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "licenses": [{"expression": package.licence}] if package.licence else [],
        "externalReferences": [{"type": "distribution", "url": package.purl, "hashes": hashes}],
    }


def audit() -> int:
    """Asks whether vulnerabilities of the locked packages are known."""
    options = ("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json")
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return tell_audit(json.loads(done.stdout)["dependencies"])
    except ValueError:
        # Without an answer it says why at length; the last line is the reason.
        print(f"The packages were not audited: {(done.stderr.strip() or 'no answer').splitlines()[-1]}")
        return FAILED if "No module named" in done.stderr else DONE


def tell_audit(audited: Sequence[dict[str, Any]]) -> int:
    """What pip-audit found. It calls well what it could not look up: that is no answer, and where no package can be
    looked up there is nobody to ask."""
    unknown = [one["name"] for one in audited if "skip_reason" in one]
    for one in audited:
        for found in one.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"]) or "no version"
            print(f"{one['name']} {one['version']}: {found['id']}, fixed in {fixed}")
    if audited and len(unknown) == len(audited):
        print(f"The packages were not audited: nobody can be asked from here about any of the {len(audited)}.")
        return DONE
    if unknown:
        print(f"Not audited, because nothing is known of them: {', '.join(unknown)}")
    vulnerable = sum(1 for one in audited if one.get("vulns"))
    print(f"{vulnerable} of {len(audited) - len(unknown)} packages have known vulnerabilities")
    return FAILED if vulnerable or unknown else DONE


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.list_packages", description=__doc__)
    parser.add_argument("what", choices=("sbom", "licences", "audit"))
    asked = parser.parse_args(arguments)
    if asked.what == "audit":
        return audit()
    try:
        found = packages()
    except PackagesError as error:
        print(f"packages: {error}", file=sys.stderr)
        return FAILED
    if asked.what == "sbom":
        print(json.dumps(sbom(found), indent=2))
    else:
        for package in found:
            print(f"{package.name:<44} {package.version:<14} {package.licence or 'UNKNOWN'}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
