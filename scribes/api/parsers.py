"""Strict JSON: what is accepted can also be stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


def parse_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8 that PostgreSQL can store.

    Raises ParseError (400) for malformed or too deeply nested JSON, for NaN, Infinity and numbers too
    large for a float such as 1e999, and for two kinds of text that PostgreSQL rejects: NUL, and lone
    surrogates.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_reject_constant, parse_float=_finite)
        _check_storable(value)
    except RecursionError:
        raise ParseError("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"The body is not valid JSON: {error}") from None
    return value


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _check_storable(value: Any) -> None:
    for text in _texts(value):
        if "\0" in text:
            raise ValueError("it contains a NUL character")
        text.encode()  # a lone surrogate raises UnicodeEncodeError, a ValueError


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class StrictJSONParser(JSONParser):
    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> Any:
        return parse_json(stream.read())
