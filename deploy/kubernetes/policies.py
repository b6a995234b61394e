"""Who may connect to whom, as network policies: nobody, but for what `calls` says, the database and the collector."""

from deploy.kubernetes.calls import CALLS, callers
from deploy.kubernetes.workloads import METRICS, Resource, labels, resource
from kit.settings import PORTS

SYSTEM = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}


def closed() -> Resource:
    """All pods of the namespace: nothing in, nothing out."""
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return resource("NetworkPolicy", "networking.k8s.io/v1", "closed", {"spec": spec})


def service(name: str) -> Resource:
    inward = [{"from": [pods(caller) for caller in callers(name)], "ports": [tcp(PORTS[name])]}]
    outward = [*names_and_telemetry(), database(), *calls(name)]
    if name == "content":
        # Recordings are in a bucket.
        outward.append({"ports": [tcp(443)]})
    return policy(name, inward, outward)


def gateway() -> Resource:
    watching = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
    inward = [{"ports": [tcp(8080)]}, {"from": [watching], "ports": [tcp(METRICS)]}]
    return policy("gateway", inward, [*names_and_telemetry(), *calls("gateway")])


def job(name: str) -> Resource:
    return policy(name, [], [*names_and_telemetry()[:1], database()])


def policy(name: str, inward: list[Resource], outward: list[Resource]) -> Resource:
    spec = {
        "podSelector": {"matchLabels": labels(name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": inward,
        "egress": outward,
    }
    return resource("NetworkPolicy", "networking.k8s.io/v1", name, {"spec": spec})


def calls(name: str) -> list[Resource]:
    return [{"to": [pods(called)], "ports": [tcp(PORTS[called])]} for called in PORTS if called in CALLS[name]]


def names_and_telemetry() -> list[Resource]:
    collector = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "collector"}}}
    return [
        {"to": [SYSTEM], "ports": [tcp(53), {"protocol": "UDP", "port": 53}]},
        {"to": [collector], "ports": [tcp(4317)]},
    ]


def database() -> Resource:
    # Wherever it is: an overlay names its addresses.
    return {"ports": [tcp(5432)]}


def pods(name: str) -> Resource:
    return {"podSelector": {"matchLabels": labels(name)}}


def tcp(port: int) -> Resource:
    return {"protocol": "TCP", "port": port}
