"""Kubernetes manifests, generated: `python -m deploy.kubernetes`."""
