"""One file a kind of resource: parse the request, call one SQL function, respond."""
