"""`flashsale up`: a private cluster and the HTTP server, in the foreground."""
