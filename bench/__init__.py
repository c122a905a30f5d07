"""Benchmarks: `make bench`. README.md here says what each row means."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
