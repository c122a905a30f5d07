"""`flashsale up`: a private PostgreSQL cluster and the HTTP server on this machine."""
