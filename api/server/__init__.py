"""HTTP below ASGI: the protocol, admission control, the gunicorn worker."""
