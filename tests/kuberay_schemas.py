"""Strict checks of KubeRay's resources: structural schemas, unknown fields refused, and CEL rules."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celpy
import jsonschema

Schema = dict[str, Any]


def load(folder: Path, kind: str) -> Schema:
    schema: Schema = json.loads((folder / f"{kind.lower()}.ray.io.v1.json").read_text(encoding="utf-8"))
    # The schemas say nothing of these three, as a resource's schema may.
    schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return schema


def problems(document: dict[str, Any], schema: Schema) -> list[tuple[str, str]]:
    """Pairs of a field's path and what is wrong with it, as an API server with strict validation says."""
    found = [
        (".".join(str(part) for part in error.absolute_path), error.message)
        for error in jsonschema.Draft202012Validator(_strict(schema)).iter_errors(document)
    ]
    return found + list(_broken_rules(document, schema, ""))


def _strict(node: Schema) -> Schema:
    strict = {key: value for key, value in node.items() if not key.startswith("x-kubernetes")}
    # Structural formats are documentation here, and `nullable` is OpenAPI's.
    strict.pop("format", None)
    if node.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in node:
        strict["properties"] = {key: _strict(value) for key, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            strict[key] = _strict(node[key])
    if strict.pop("nullable", False):
        return {"anyOf": [{"type": "null"}, strict]}
    return strict


def _broken_rules(value: Any, node: Schema, path: str) -> Iterator[tuple[str, str]]:
    for rule in node.get("x-kubernetes-validations", ()):
        # Rules of `oldSelf` are about updates.
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield path, rule["message"]
    if isinstance(value, dict):
        more = node.get("additionalProperties")
        for key, child in value.items():
            inner = node.get("properties", {}).get(key, more if isinstance(more, dict) else {})
            yield from _broken_rules(child, inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _broken_rules(child, node.get("items", {}), f"{path}[{i}]")


def _holds(rule: str, value: Any) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value)}))
