"""The signals of one window, measured; each module looks at one side of production."""
