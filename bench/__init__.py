"""Benchmarks: `make bench`. README.md here says what each row means."""
