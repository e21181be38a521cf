"""The parts of a report, by topic."""
