"""Deployments, jobs and what belongs to each of them."""

from typing import Any

from kit.settings import PORTS

Resource = dict[str, Any]
IMAGE = "storyloom"
ENVOY = "envoyproxy/envoy:v1.40.0"
USER = 10001
TLS = {name: f"/run/tls/{file}" for name, file in (("CERTIFICATE", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt"))}
# The breath between NOT_SERVING and the end of new calls. Services hear of it at once and the gateway within a second,
# so 2.5 would do (docs/deployment.md, "Restarts"); the rest is for what goes by addresses, which the cluster's name
# server remembers for five.
DRAIN_DELAY, LONGEST_CALL = 5, 30
DRAIN_GRACE = LONGEST_CALL
# The other way round: until a new pod is known. The gateway asks for names every five seconds, services when they lose
# a connection, which lasts five minutes at most.
READY_SECONDS = 10
METRICS = 9902
REPLICAS, MOST_REPLICAS = 2, 6
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "storyloom"}


def resource(kind: str, version: str, name: str, body: Resource, **metadata: Any) -> Resource:
    found = {"name": name, "labels": labels(name), **metadata}
    return {"apiVersion": version, "kind": kind, "metadata": found, **body}


def service(name: str) -> list[Resource]:
    """All that one service is."""
    port = PORTS[name]
    probe = {"exec": {"command": ["python", "-m", "deploy.probe", name]}, "timeoutSeconds": 5}
    container = {
        "name": name,
        "image": IMAGE,
        "command": ["python", "-m", f"services.{name}"],
        "ports": [{"name": "grpc", "containerPort": port}],
        "env": [
            {"name": "LISTEN_ADDRESS", "value": f"0.0.0.0:{port}"},
            {"name": "INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "storyloom"}}, {"secretRef": {"name": f"storyloom-{name}"}}],
        "resources": requests("100m", "160Mi", memory_limit="384Mi"),
        # Each is a Python process that takes a sixth of a second of a processor: no more often than needed.
        "startupProbe": probe | {"periodSeconds": 2, "failureThreshold": 30},
        "readinessProbe": probe | {"periodSeconds": 10, "failureThreshold": 2},
        "livenessProbe": probe | {"periodSeconds": 30, "failureThreshold": 3},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount("tls", "/run/tls", read_only=True), mount("tmp", "/tmp")],  # noqa: S108
    }
    volumes = [tls_volume(name), scratch("tmp", "64Mi")]
    return [
        account(name),
        # Headless: the gateway and the services see each pod and choose among them.
        endpoints(name, {"grpc": port}, headless=True),
        deployment(name, pod(name, [container], volumes, DRAIN_DELAY + DRAIN_GRACE + 15)),
        autoscaler(name),
        budget(name),
    ]


def gateway() -> list[Resource]:
    """Envoy, with the configuration that the image of the services writes beside it at each start."""
    shared, tls = mount("configuration", "/gateway"), mount("tls", "/run/tls", read_only=True)
    # Of the gateway itself, not of /healthz: without identity it still has answers to give.
    ready = {"httpGet": {"path": "/ready", "port": "metrics"}, "timeoutSeconds": 3}
    container = {
        "name": "gateway",
        "image": ENVOY,
        "command": ["envoy", "-c", "/gateway/envoy.yaml", "--concurrency", "2", "--disable-hot-restart"],
        "args": ["--log-level", "warning", "--drain-time-s", "10"],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": METRICS}],
        "resources": requests("250m", "128Mi", memory_limit="768Mi"),
        "startupProbe": ready | {"periodSeconds": 1, "failureThreshold": 30},
        "readinessProbe": ready | {"periodSeconds": 5, "failureThreshold": 1},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", drain()]}}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [shared | {"readOnly": True}, tls, mount("tmp", "/tmp")],  # noqa: S108
    }
    volumes = [tls_volume("gateway"), scratch("configuration", "32Mi"), scratch("tmp", "16Mi")]
    return [
        account("gateway"),
        endpoints("gateway", {"http": 8080}),
        deployment("gateway", pod("gateway", [container], volumes, LONGEST_CALL + 15, [configuration(shared, tls)])),
        autoscaler("gateway"),
        budget("gateway"),
    ]


def configuration(shared: Resource, tls: Resource) -> Resource:
    """The container that writes Envoy's files, and ends."""
    return {
        "name": "configuration",
        "image": IMAGE,
        "command": ["python", "-m", "gateway.envoy", "--out", "/gateway"],
        "env": [
            {"name": "GATEWAY_ADDRESS", "value": "0.0.0.0:8080"},
            # The pod's own loopback, where nobody but Envoy is: the shell that drains it cannot speak to a socket file.
            {"name": "GATEWAY_ADMIN_ADDRESS", "value": "127.0.0.1:9901"},
            {"name": "GATEWAY_METRICS_ADDRESS", "value": f"0.0.0.0:{METRICS}"},
        ],
        "envFrom": [{"configMapRef": {"name": "storyloom"}}, {"secretRef": {"name": "storyloom-gateway"}}],
        "resources": requests("100m", "128Mi", memory_limit="256Mi"),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [shared, tls, mount("tmp", "/tmp")],  # noqa: S108
    }


def drain() -> str:
    """Envoy ends at once when told to, so it is told before: answers close their connections, then it may go.

    Clients' listener alone is drained: the kubelet goes on to hear that the pod is not ready."""
    lines = ["post() { exec 3<>/dev/tcp/127.0.0.1/9901"]
    request = r"POST $1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    lines += [f'printf "{request}" >&3', "cat <&3 >/dev/null; }"]
    steps = ["post /healthcheck/fail", "sleep 5", "post '/drain_listeners?graceful&inboundonly'"]
    return "; ".join([*lines, *steps, f"sleep {LONGEST_CALL}"])


def job(name: str, command: list[str]) -> Resource:
    """Runs once, before the services of a release: Argo CD and Helm read the annotations, `kubectl` goes by hand."""
    container = {
        "name": name,
        "image": IMAGE,
        "command": command,
        "envFrom": [{"secretRef": {"name": f"storyloom-{name}"}}],
        "resources": requests("100m", "192Mi", memory_limit="512Mi"),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount("tmp", "/tmp")],  # noqa: S108
    }
    template = pod(name, [container], [scratch("tmp", "64Mi")], 30)
    template["spec"] |= {"restartPolicy": "Never", "serviceAccountName": "default"}
    del template["spec"]["topologySpreadConstraints"]
    hooks = {
        "argocd.argoproj.io/hook": "PreSync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
    }
    spec = {"backoffLimit": 2, "activeDeadlineSeconds": 1800, "ttlSecondsAfterFinished": 86400, "template": template}
    return resource("Job", "batch/v1", name, {"spec": spec}, annotations=hooks)


def pod(
    name: str, containers: list[Resource], volumes: list[Resource], grace: int, first: list[Resource] | None = None
) -> Resource:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(name)},
    }
    spec = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": POD_SECURITY,
        "topologySpreadConstraints": [spread],
        **({"initContainers": first} if first else {}),
        "containers": containers,
        "volumes": volumes,
    }
    return {"metadata": {"labels": labels(name)}, "spec": spec}


def deployment(name: str, template: Resource) -> Resource:
    spec = {
        # Without `replicas`: that is the autoscaler's, and a new release must not take it back.
        "minReadySeconds": READY_SECONDS,
        "revisionHistoryLimit": 5,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": labels(name)},
        "template": template,
    }
    return resource("Deployment", "apps/v1", name, {"spec": spec})


def autoscaler(name: str) -> Resource:
    target = {"type": "Utilization", "averageUtilization": 70}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": REPLICAS,
        "maxReplicas": MOST_REPLICAS,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        # Each process that goes drains first: not for a lull of a minute.
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
    }
    return resource("HorizontalPodAutoscaler", "autoscaling/v2", name, {"spec": spec})


def budget(name: str) -> Resource:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels(name)}}
    return resource("PodDisruptionBudget", "policy/v1", name, {"spec": spec})


def account(name: str) -> Resource:
    return resource("ServiceAccount", "v1", name, {"automountServiceAccountToken": False})


def endpoints(name: str, ports: dict[str, int], *, headless: bool = False) -> Resource:
    found = [{"name": one, "port": port, "targetPort": one} for one, port in ports.items()]
    spec = {**({"clusterIP": "None"} if headless else {}), "selector": labels(name), "ports": found}
    return resource("Service", "v1", name, {"spec": spec})


def requests(cpu: str, memory: str, *, memory_limit: str) -> Resource:
    # No limit of processor time: a process that is throttled answers late although the machine idles.
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory_limit}}


def mount(name: str, path: str, *, read_only: bool = False) -> Resource:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def tls_volume(name: str) -> Resource:
    return {"name": "tls", "secret": {"secretName": f"tls-{name}", "defaultMode": 0o440}}


def scratch(name: str, size: str) -> Resource:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}
