"""DFT frames: reading, checks, splits and batches."""

from pathlib import Path

FILES = Path(__file__).parent / "files"  # data that ship with the package
