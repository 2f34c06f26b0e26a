"""Judge records by a channel's published interface description: JSON lines of [file, schema name or pointer, record] from standard input.

Prints one line per problem; waived ones (a path's end and the rule that it breaks) are left out.
"""

import json
import sys

from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4


def main() -> None:
    """Run the judge."""
    waived = {tuple(item) for item in json.loads(sys.argv[1])}
    problems = []
    for line in sys.stdin:
        file, name, record = json.loads(line)
        with open(file, encoding="utf-8") as source:  # noqa: PTH123 - a script of few dependencies
            document = json.load(source)
        registry = Registry().with_resource("urn:published", DRAFT4.create_resource(document))
        pointer = name if name.startswith("#/") else f"#/components/schemas/{name}"
        validator = OAS30Validator({"$ref": f"urn:published{pointer}"}, registry=registry)
        for error in validator.iter_errors(record):
            path = ".".join(str(part) for part in error.absolute_path)
            if (path.rpartition(".")[2], str(error.validator)) not in waived:
                problems.append(f"{name} {path or '(top)'} {error.validator}: {error.message[:200]}")
    print(json.dumps(problems))


main()
