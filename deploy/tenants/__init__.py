"""One tenant's data as a file: taken out of an installation, brought into another, or put back into its own."""
