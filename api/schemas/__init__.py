"""What clients send and receive: its shapes, and strict parsing."""
