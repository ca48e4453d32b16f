"""Faults: a killed process and a full disk lose no work."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_a_killed_training_ends_bit_for_bit_where_it_would_have_and_a_full_disk_costs_nothing():
    subprocess.run([sys.executable, TESTS / "faults" / "kill.py", "--kills", "2"], check=True, timeout=600)
