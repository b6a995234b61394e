"""What is told of a running platform: collector, rules, dashboards."""
