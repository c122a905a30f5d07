"""HTTP below ASGI: the protocol, admission control, dispatch by port, the gunicorn worker."""
