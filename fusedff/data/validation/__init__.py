"""Checks of a user's frames: units, labels, duplicates."""
