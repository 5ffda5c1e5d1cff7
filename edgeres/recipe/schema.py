"""The JSON schema of recipe files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres.recipe.loading import OPTIONAL
from edgeres.recipe.sections import RecipeFile

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue


def schema() -> JsonSchemaValue:
    """The JSON schema of recipe files, for editors."""
    written = RecipeFile.model_json_schema()
    for model in (written, *written["$defs"].values()):
        model.pop("required", None)  # what is missing may come from what the file extends
        for name, value in model["properties"].items():
            if "$ref" in value:  # a section: empty means its defaults
                options = [{"$ref": value["$ref"]}, {"type": "null"}]
                model["properties"][name] = {"anyOf": options} | _description(value)
    for name in OPTIONAL:
        del written["properties"][name]["default"]  # left out, not the same as null
        written["properties"][name]["anyOf"].append({"const": False})
    written["properties"]["data"]["anyOf"].append({"type": "string", "minLength": 1})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **written,
        "title": "edgeres recipe",
        "anyOf": [{"required": ["name"]}, {"required": ["extends"]}],
    }


def _description(value: JsonSchemaValue) -> JsonSchemaValue:
    return {"description": value["description"]} if "description" in value else {}
