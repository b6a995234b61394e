"""`python -m deploy.kubernetes`: writes the manifests, for `kubectl apply -k` and overlays of them."""

import argparse
from pathlib import Path

import yaml

from deploy.kubernetes import policies, workloads
from deploy.kubernetes.workloads import DRAIN_DELAY, DRAIN_GRACE, TLS, Resource
from kit.settings import PORTS

OUT = Path(__file__).parents[2] / "gen" / "kubernetes"
MADE = "# Made by `python -m deploy.kubernetes`: change that, or patch this in an overlay.\n"
JOBS = {
    "bootstrap": ["python", "-m", "deploy.local.bootstrap"],
    "migrations": ["python", "-m", "kit.migrations", "upgrade"],
}


def settings() -> Resource:
    """What all programs are told that is no secret; overlays merge their own into it."""
    data = {f"{name.upper()}_ADDRESS": f"{name}:{port}" for name, port in PORTS.items()}
    data |= {f"TLS_{name}": path for name, path in TLS.items()}
    data |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "TRACE_SAMPLE_PERCENT": "1"}
    data |= {"DRAIN_DELAY": str(DRAIN_DELAY), "DRAIN_GRACE": str(DRAIN_GRACE)}
    # An ingress controller ends clients' TLS, unless an overlay gives the gateway a certificate.
    data |= {"TRUSTED_PROXIES": "1"}
    # Pods come and go: a folder of one of them would lose recordings.
    data |= {"STORAGE_BUCKET": "storyloom-recordings", "STORAGE_REGION": "us-east-1"}
    return workloads.resource("ConfigMap", "v1", "storyloom", {"data": data})


def kustomization(files: list[str]) -> Resource:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "storyloom",
        "resources": files,
        "images": [{"name": "storyloom", "newTag": "latest"}],
    }


def manifests() -> dict[str, list[Resource]]:
    """The content of each file, by its path."""
    base = {"settings.yaml": [settings()], "closed.yaml": [policies.closed()]}
    base |= {f"{name}.yaml": [*workloads.service(name), policies.service(name)] for name in PORTS}
    base["gateway.yaml"] = [*workloads.gateway(), policies.gateway()]
    made = {f"base/{name}": found for name, found in base.items()}
    made["base/kustomization.yaml"] = [kustomization(sorted(base))]
    for name, command in JOBS.items():
        made[f"{name}/job.yaml"] = [workloads.job(name, command), policies.job(name)]
        made[f"{name}/kustomization.yaml"] = [kustomization(["job.yaml"])]
    return made


class _Plain(yaml.SafeDumper):
    """Repeats what occurs twice instead of pointing at it: easier to patch than anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def text(resources: list[Resource]) -> str:
    return MADE + yaml.dump_all(resources, Dumper=_Plain, sort_keys=False, width=120)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for name, resources in manifests().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text(resources))
        print(out / name)


if __name__ == "__main__":
    main()
