"""What operators do to a running platform, in their own name."""
