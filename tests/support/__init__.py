"""Helpers that more than one folder of tests uses."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
