"""The HTTP front end: parses, calls one store function, answers."""
