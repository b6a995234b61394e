"""Copies of the whole database, and the way back from them: `python -m deploy.backups`, or `make backup` and others."""
