"""Validates objects against Stripe's own OpenAPI description. Arguments: the description, and a JSON file with {schema: [object, …]}."""

import json
import sys
from pathlib import Path

from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4


def with_nulls(value):
    """OpenAPI's `nullable` beside an enum or a choice, said in words that the validator follows."""
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: with_nulls(item) for key, item in value.items()}
    if made.get("nullable") is True:
        if isinstance(made.get("enum"), list):
            made["enum"] = [*made["enum"], None]
        if isinstance(made.get("anyOf"), list):
            made["anyOf"] = [*made["anyOf"], {"enum": [None]}]
    return made


document = with_nulls(json.loads(Path(sys.argv[1]).read_text()))
registry = Registry().with_resource("urn:stripe", Resource(document, DRAFT4))
faults = {}
for name, objects in json.loads(Path(sys.argv[2]).read_text()).items():
    validator = OAS30Validator({"$ref": f"urn:stripe#/components/schemas/{name}"}, registry=registry)
    for each in objects:
        for error in validator.iter_errors(each):
            leaves = sorted(error.context, key=lambda inner: len(inner.absolute_path)) or [error]
            faults.setdefault(name, set()).add(f"{'.'.join(map(str, error.absolute_path))}: {leaves[-1].message[:120]}")
print(json.dumps({name: sorted(found) for name, found in faults.items()}))
