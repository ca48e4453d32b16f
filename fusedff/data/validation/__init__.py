"""Checks of labelled frames: units, consistency of labels, duplicates."""
