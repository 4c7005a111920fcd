"""docs/asyncapi.yaml as somebody else would read it: nothing of the launcher's own is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml


class Book:
    """An AsyncAPI 3.0 document."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            self.value: dict[str, Any] = yaml.safe_load(file)

    def follow(self, reference: str) -> Any:
        """What a `$ref` of this document means."""
        found: Any = self.value
        for level in reference.removeprefix("#/").split("/"):
            found = found[level]
        return self.follow(found["$ref"]) if isinstance(found, dict) and "$ref" in found else found

    def references(self, value: Any = ...) -> Iterator[str]:
        """Every `$ref`, anywhere."""
        value = self.value if value is ... else value
        if isinstance(value, dict):
            for key, one in value.items():
                if key == "$ref":
                    yield one
                else:
                    yield from self.references(one)
        elif isinstance(value, list):
            for one in value:
                yield from self.references(one)

    def address(self, operation: str) -> str:
        """The topic of an operation, with its parameters in braces."""
        return self.follow(self.value["operations"][operation]["channel"]["$ref"])["address"]

    def reply_address(self, operation: str) -> str:
        reply = self.value["operations"][operation]["reply"]
        return self.follow(reply["channel"]["$ref"])["address"]

    def fits(self, schema: dict[str, Any], value: Any) -> bool:
        return not self.mistakes(schema, value)

    def mistakes(self, schema: dict[str, Any], value: Any) -> list[str]:
        """What is wrong with a value, by an independent reader of JSON Schema."""
        whole = {**schema, "components": self.value["components"]}
        found = jsonschema.Draft7Validator(whole).iter_errors(value)
        return [f"{list(one.absolute_path)}: {one.message[:300]}" for one in found]

    def judge(self, topic: str, payload: bytes, verb: str = "") -> list[str]:
        """What is wrong with a message that was seen.

        An answer is of the verb that asked; an empty payload empties a retained topic.
        """
        for channel in self.value["channels"].values():
            pattern = re.sub(
                r"\\\{\w+\\\}", "[a-z0-9][a-z0-9-]{0,62}", re.escape(channel["address"])
            )
            if not re.fullmatch(pattern, topic):
                continue
            names = list(channel["messages"])
            name = f"{verb}-answer" if verb else names[0]
            message = self.follow(channel["messages"][name]["$ref"])
            if message.get("contentType") == "application/octet-stream":
                return []
            return self.mistakes(message["payload"], json.loads(payload)) if payload else []
        return [f"no channel has the topic {topic}"]
