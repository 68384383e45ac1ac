"""A JSON schema validator for data that YAML or Python's json has read."""

import math

import jsonschema

# JSON has no .nan and .inf and takes 2.0 for a whole number; YAML and Python bring both along.
StrictValidator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many({
        'integer': lambda _, value: type(value) is int,
        'number': lambda _, value: type(value) in (int, float) and math.isfinite(value)}))
