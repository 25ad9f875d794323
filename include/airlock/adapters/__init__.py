"""The real things behind the ports: one module for each."""
