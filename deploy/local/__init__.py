"""Runs the whole of Storyloom on one machine: `python -m deploy.local run`, `trace`, `status`."""
