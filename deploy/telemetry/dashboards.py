"""`python -m deploy.telemetry.dashboards`: writes Grafana's dashboards, so that they are reviewed like code."""

import json
from pathlib import Path
from typing import Any

from kit.settings import SERVICES

OUT = Path(__file__).parents[2] / "gen" / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 12, 8
FAULTS = "INTERNAL|UNKNOWN|DATA_LOSS|UNIMPLEMENTED"
REFUSALS = "RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED"
CHOSEN = 'job=~"$service", rpc_method=~"$rpc"'
INGRESS = 'envoy_http_conn_manager_prefix="ingress"'
TO_SERVICES = f'envoy_cluster_name=~"{"|".join(SERVICES)}"'

Panel = tuple[str, str, str, str]

# Title, unit, query, and the labels of its legend.
CALLS: list[Panel] = [
    (
        "Calls",
        "reqps",
        f"sum by (rpc_method) (rate(rpc_server_duration_milliseconds_count{{{CHOSEN}}}[5m]))",
        "rpc_method",
    ),
    (
        "Faults",
        "reqps",
        "sum by (rpc_method, rpc_grpc_status_code) (rate(rpc_server_duration_milliseconds_count"
        f'{{{CHOSEN}, rpc_grpc_status_code=~"{FAULTS}"}}[5m]))',
        "rpc_method rpc_grpc_status_code",
    ),
    (
        "Refused or late",
        "reqps",
        "sum by (job, rpc_grpc_status_code) (rate(rpc_server_duration_milliseconds_count"
        f'{{{CHOSEN}, rpc_grpc_status_code=~"{REFUSALS}"}}[5m]))',
        "job rpc_grpc_status_code",
    ),
    (
        "All outcomes",
        "reqps",
        f"sum by (rpc_grpc_status_code) (rate(rpc_server_duration_milliseconds_count{{{CHOSEN}}}[5m]))",
        "rpc_grpc_status_code",
    ),
    *(
        (
            f"Slowest {percent} of 100",
            "ms",
            f"histogram_quantile({1 - percent / 100}, sum by (rpc_method, le) "
            f"(rate(rpc_server_duration_milliseconds_bucket{{{CHOSEN}}}[5m])))",
            "rpc_method",
        )
        for percent in (50, 5, 1)
    ),
    (
        "Mean",
        "ms",
        f"sum by (rpc_method) (rate(rpc_server_duration_milliseconds_sum{{{CHOSEN}}}[5m])) / "
        f"sum by (rpc_method) (rate(rpc_server_duration_milliseconds_count{{{CHOSEN}}}[5m]))",
        "rpc_method",
    ),
]
EVENTS: list[Panel] = [
    ("Age of the oldest event", "s", "max by (job, consumer) (storyloom_outbox_lag_seconds)", "job consumer"),
    ("Waiting", "short", "max by (job, consumer) (storyloom_outbox_waiting)", "job consumer"),
    ("Parked", "short", "max by (job, consumer) (storyloom_outbox_parked)", "job consumer"),
    (
        "Deliveries",
        "ops",
        "sum by (job, consumer, outcome) (rate(storyloom_outbox_events_total[5m]))",
        "job consumer outcome",
    ),
]
GATEWAY: list[Panel] = [
    (
        "Requests by class",
        "reqps",
        f"sum by (envoy_response_code_class) (rate(envoy_http_downstream_rq_xx{{{INGRESS}}}[5m]))",
        "envoy_response_code_class",
    ),
    (
        "Slowest 5 of 100",
        "ms",
        f"histogram_quantile(0.95, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{{{INGRESS}}}[5m])))",
        "",
    ),
    ("Healthy processes", "short", f"envoy_cluster_membership_healthy{{{TO_SERVICES}}}", "envoy_cluster_name"),
    *(
        (
            title,
            "reqps",
            f"sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_{metric}{{{TO_SERVICES}}}[5m]))",
            "envoy_cluster_name",
        )
        for title, metric in (
            ("Requests to services", "rq_total"),
            ("Retries", "rq_retry"),
            ("Refused by circuit breakers", "rq_active_overflow"),
        )
    ),
    ("Refused by rate limits", "reqps", "sum(rate(envoy_http_local_rate_limit_enforced[5m]))", ""),
    ("Tokens refused", "reqps", "sum(rate(envoy_http_jwt_authn_denied[5m]))", ""),
    ("Connections", "short", f"sum(envoy_http_downstream_cx_active{{{INGRESS}}})", ""),
    ("Memory", "bytes", "envoy_server_memory_allocated", "instance"),
]
CAPACITY: list[Panel] = [
    (
        "Connections in use",
        "short",
        'sum by (job) (db_client_connection_count{db_client_connection_state="used", job=~"$service"})',
        "job",
    ),
    ("Connections that may be", "short", 'sum by (job) (db_client_connection_max{job=~"$service"})', "job"),
    (
        "Wait for a connection, slowest 5 of 100",
        "s",
        "histogram_quantile(0.95, sum by (job, le) "
        '(rate(db_client_connection_wait_time_seconds_bucket{job=~"$service"}[5m])))',
        "job",
    ),
    (
        "No connection in time",
        "ops",
        'sum by (job) (rate(db_client_connection_timeouts_total{job=~"$service"}[5m]))',
        "job",
    ),
    (
        "Turns taken",
        "percentunit",
        'sum by (job, limiter) (storyloom_limiter_held{job=~"$service"}) / '
        'sum by (job, limiter) (storyloom_limiter_slots{job=~"$service"})',
        "job limiter",
    ),
    (
        "Calls that wait for their turn",
        "short",
        'sum by (job, limiter) (storyloom_limiter_waiting{job=~"$service"})',
        "job limiter",
    ),
    (
        "Wait for a turn, slowest 5 of 100",
        "s",
        "histogram_quantile(0.95, sum by (job, limiter, le) "
        '(rate(storyloom_limiter_wait_seconds_bucket{job=~"$service"}[5m])))',
        "job limiter",
    ),
    (
        "No turn in time",
        "ops",
        'sum by (job, limiter) (rate(storyloom_limiter_refused_total{job=~"$service"}[5m]))',
        "job limiter",
    ),
    (
        "Caches know",
        "percentunit",
        'sum by (job, cache) (rate(storyloom_cache_requests_total{job=~"$service", outcome="hit"}[5m])) / '
        'sum by (job, cache) (rate(storyloom_cache_requests_total{job=~"$service"}[5m]))',
        "job cache",
    ),
    (
        "Caches are asked",
        "reqps",
        'sum by (job, cache) (rate(storyloom_cache_requests_total{job=~"$service"}[5m]))',
        "job cache",
    ),
]
WORK: list[Panel] = [
    (
        "Weaves, renders, grades",
        "ops",
        "sum by (work) (rate(storyloom_work_duration_seconds_count[5m]))",
        "work",
    ),
    (
        "Slowest 5 of 100",
        "s",
        "histogram_quantile(0.95, sum by (work, le) (rate(storyloom_work_duration_seconds_bucket[5m])))",
        "work",
    ),
    (
        "Mean",
        "s",
        "sum by (work) (rate(storyloom_work_duration_seconds_sum[5m])) / "
        "sum by (work) (rate(storyloom_work_duration_seconds_count[5m]))",
        "work",
    ),
    ("Sign-ins", "ops", "sum by (outcome) (rate(storyloom_sign_ins_total[5m]))", "outcome"),
]
BACKUPS: list[Panel] = [
    ("Age of the newest backup", "s", "min by (kind) (storyloom_backups_age_seconds)", "kind"),
    ("Age of the last drill that went well", "s", "min by (kind) (storyloom_drills_age_seconds)", "kind"),
    ("Lost with the server now", "s", "min(storyloom_wal_behind_seconds)", ""),
    ("Moments go back", "s", "max(storyloom_wal_reaches_seconds)", ""),
    ("Size of the newest backup", "bytes", "max by (kind) (storyloom_backups_size_bytes)", "kind"),
    ("Log that the server keeps", "bytes", "max(storyloom_wal_held_bytes)", ""),
    ("Failures in an hour", "short", "sum by (what) (increase(storyloom_wal_failures_total[1h]))", "what"),
    ("Unreadable or not trusted", "short", "max by (kind) (storyloom_backups_refused)", "kind"),
]
VARIABLES = {
    "calls": [
        ("service", "label_values(rpc_server_duration_milliseconds_count, job)"),
        ("rpc", 'label_values(rpc_server_duration_milliseconds_count{job=~"$service"}, rpc_method)'),
    ],
    "capacity": [("service", "label_values(storyloom_limiter_slots, job)")],
}


def panel(nth: int, described: Panel) -> dict[str, Any]:
    title, unit, query, legend = described
    target = {"datasource": PROMETHEUS, "expr": query, "refId": "A", "exemplar": "_bucket" in query}
    if legend:
        target["legendFormat"] = " · ".join(f"{{{{{name}}}}}" for name in legend.split())
    return {
        "id": nth + 1,
        "type": "timeseries",
        "title": title,
        "datasource": PROMETHEUS,
        "gridPos": {"x": nth % 2 * WIDTH, "y": nth // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [target],
    }


def variable(name: str, query: str) -> dict[str, Any]:
    many = {"includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return {"name": name, "type": "query", "datasource": PROMETHEUS, "query": query, "refresh": 2, **many}


def dashboard(name: str, title: str, panels: list[Panel]) -> dict[str, Any]:
    return {
        "uid": f"storyloom-{name}",
        "title": f"Storyloom: {title}",
        "tags": ["storyloom"],
        "timezone": "utc",
        "schemaVersion": 41,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable(*one) for one in VARIABLES.get(name, [])]},
        "panels": [panel(nth, one) for nth, one in enumerate(panels)],
    }


def dashboards() -> dict[str, dict[str, Any]]:
    """Each dashboard by its file's name."""
    made = (
        ("calls", "calls", CALLS),
        ("capacity", "connections, turns, caches", CAPACITY),
        ("work", "weaving, grading, sign-ins", WORK),
        ("events", "events between services", EVENTS),
        ("gateway", "gateway", GATEWAY),
        ("backups", "backups", BACKUPS),
    )
    return {f"{name}.json": dashboard(name, title, panels) for name, title, panels in made}


def text(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, made in dashboards().items():
        (OUT / name).write_text(text(made))
        print(OUT / name)


if __name__ == "__main__":
    main()
