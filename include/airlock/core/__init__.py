"""Pure values and rules: no clock, no I/O, no vendor library but pydantic and rfc8785."""
