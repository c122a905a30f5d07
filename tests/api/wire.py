"""Bytes on a connection, for what no HTTP client would send."""

import socket
from urllib.parse import urlsplit

import httpx


def send_raw(server: str, *parts: bytes) -> httpx.Response:
    """Send these and nothing more, and read until the server closes.

    :param server: its base URL
    """
    address = urlsplit(server)
    with socket.create_connection((address.hostname, address.port), timeout=30) as wire:
        for part in parts:
            wire.sendall(part)
        answer = b""
        while chunk := wire.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)
