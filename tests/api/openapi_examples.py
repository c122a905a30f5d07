"""The examples of /openapi.json: sends those of requests, and compares responses with the others."""

import re
from typing import Any

import httpx

from tests.api.test_openapi import Json, fits, operations, resolved

MACHINES_OWN = ("schema_digest", "scheduler", "scheduler_detail")


def form(value: Any) -> Any:
    """A value without its numbers and times, which differ from one run to the next."""
    if isinstance(value, dict):
        return {name: "*" if name in MACHINES_OWN else form(item) for name, item in value.items()}
    if isinstance(value, list):
        return [form(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"\d[\d.:T-]*", "0", value)
    return 0 if type(value) is int else value


class Examples:
    """The document's examples, and those that have not been seen yet."""

    def __init__(self, described: Json, client: httpx.Client) -> None:
        self.client = client
        self._described = described
        self._operations = {operation["operationId"]: operation for operation in operations(described)}
        self.unseen: set[tuple[str, str]] = set()
        for id_, operation in self._operations.items():
            self.unseen.update((id_, name) for name in self._requests(id_))
            for status, response in operation["responses"].items():
                if "content" in response:
                    self.unseen.update(self._key(id_, status, name) for name in self._answers(response))
        for response in described["components"]["responses"].values():
            self.unseen.update(self._key("", "", name) for name in self._answers(response))

    def send(self, id_: str, name: str = "", change: Json | None = None, **options: Any) -> httpx.Response:
        """Send a request's example, changed only in numbers and keys that have to be others.

        :param options: parameters of the path, and what else httpx takes
        """
        operation = self._operations[id_]
        path = re.sub(r"{(\w+)}", lambda match: str(options.pop(match[1])), operation["path"])
        if name:
            options["json"] = self._requests(id_)[name]["value"] | (change or {})
            self.unseen.discard((id_, name))
        return self.client.request(operation["method"], path, **options)

    def came(self, id_: str, name: str, response: httpx.Response) -> Any:
        """The response is what the document says by this example, headers included; returns its body.

        :param id_: of the operation that gave it; "" for what no operation gives
        """
        if id_:
            promised = self._operations[id_]["responses"][str(response.status_code)]
        else:
            promised = self._described["components"]["responses"][name.title().replace("_", "")]
        examples = self._answers(promised)
        media_type = response.headers["content-type"].partition(";")[0]
        body = response.json() if "json" in media_type else response.text
        assert form(body) == form(resolved(self._described, examples[name])["value"])
        fits(self._described, promised["content"][media_type]["schema"], body)
        self.has_headers(promised, response)
        self.unseen.discard(self._key(id_, str(response.status_code), name))
        return body

    def came_empty(self, id_: str, status: int, response: httpx.Response) -> None:
        assert (response.status_code, response.content) == (status, b"")
        self.has_headers(self._operations[id_]["responses"][str(status)], response)

    def has_headers(self, promised: Json, response: httpx.Response) -> None:
        for name, header in promised["headers"].items():
            header = resolved(self._described, header)
            if header.get("required") or name in response.headers:
                value = response.headers[name]
                fits(self._described, header["schema"], int(value) if value.isdecimal() else value)

    def _requests(self, id_: str) -> Json:
        content = self._operations[id_].get("requestBody", {}).get("content", {})
        return dict(content["application/json"]["examples"]) if content else {}

    def _answers(self, response: Json) -> Json:
        ((_, content),) = response["content"].items()
        return dict(content["examples"])

    def _key(self, id_: str, status: str, name: str) -> tuple[str, str]:
        """An example that operations share counts once."""
        shared = not id_ or "$ref" in self._answers(self._operations[id_]["responses"][status])[name]
        return ("shared" if shared else f"{id_} {status}", name)
