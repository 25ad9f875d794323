"""The demo: real data, real models, five releases that end differently."""
