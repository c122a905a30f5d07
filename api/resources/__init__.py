"""One file a URL: parse the request, call one SQL function, respond."""
