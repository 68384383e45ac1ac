"""A JSON schema validator for data that YAML or Python's json has read."""

import math
from typing import Any

import jsonschema

# JSON has no .nan and .inf, which YAML and Python have; jsonschema accepts 2.0 as an integer.
StrictValidator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many({
        'integer': lambda _, value: type(value) is int,
        'number': lambda _, value: type(value) is int or (
            type(value) is float and math.isfinite(value))}))

# A message quotes the wrong value, which may be the content of a whole file.
LONGEST_MESSAGE = 300


def described(error: Any) -> str:
    """
    Return the message of a validation error in one short line.

    :param error: a jsonschema.ValidationError.
    """
    line = ' '.join(str(error.message).split())
    if len(line) <= LONGEST_MESSAGE:
        return line
    half = LONGEST_MESSAGE // 2
    return f'{line[:half]} … {line[-half:]}'
