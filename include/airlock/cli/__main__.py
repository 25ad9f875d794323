"""``python -m airlock.cli``."""

from airlock.cli import main

main()
