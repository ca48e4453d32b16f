"""Checks of what users bring: units, tables, duplicates."""
