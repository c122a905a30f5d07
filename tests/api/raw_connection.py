"""Bytes on a connection, for what no HTTP client would send."""

import socket
from urllib.parse import urlsplit

import httpx


def exchange_raw(server: str, *parts: bytes, then_leave: bool = False) -> bytes:
    """Send these and nothing more, and read until the server closes.

    :param server: its base URL
    :param then_leave: close our end of the connection after them
    """
    address = urlsplit(server)
    with socket.create_connection((address.hostname, address.port), timeout=30) as wire:
        for part in parts:
            wire.sendall(part)
        if then_leave:
            wire.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := wire.recv(65536):
            answer += chunk
    return answer


def send_raw(server: str, *parts: bytes) -> httpx.Response:
    """The one response to what `exchange_raw` sends."""
    answer = exchange_raw(server, *parts)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)
