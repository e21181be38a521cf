"""Methods that remove whole units, measured."""
