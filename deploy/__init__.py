"""How Storyloom is run: the local runner, the demo school, the tour."""
