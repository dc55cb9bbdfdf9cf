from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(
        min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT, help_text="Page size (default 20)."
    )
    offset = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, default=0, help_text="Number of results to skip."
    )


class NamedPagination(LimitOffsetPagination):
    """`?limit=&offset=`, answered as {<name>: [...], "total": N}. Invalid numbers are a 400."""

    name: ClassVar[str]

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.request = request
        self.limit, self.offset = _limit_and_offset(request)
        rows = list(queryset[self.offset : self.offset + self.limit + 1])
        # The last page tells how many rows there are; only other pages need a second query.
        is_last_page = len(rows) <= self.limit and (rows or not self.offset)
        self.count = self.offset + len(rows) if is_last_page else queryset.count()
        self.display_page_controls = self.count > self.limit
        return rows[: self.limit]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({self.name: data, "total": self.count})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {
            self.name: schema,
            "total": {"type": "integer", "description": "Number of results on all pages."},
        }
        return {"type": "object", "required": list(properties), "properties": properties}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "in": "query",
                "required": False,
                "name": "limit",
                "description": f"Page size (default {DEFAULT_LIMIT}).",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
            },
            {
                "in": "query",
                "required": False,
                "name": "offset",
                "description": "Number of results to skip.",
                "schema": {"type": "integer", "minimum": 0},
            },
        ]


def _limit_and_offset(request: Request) -> tuple[int, int]:
    """Most clients name neither. Then no serializer is built, which takes longer than using one: the
    row "GET /jobs, 20 clients, p50" of docs/benchmarks.md exceeds its limit with it."""
    if {"limit", "offset"}.isdisjoint(request.query_params):
        return DEFAULT_LIMIT, 0
    query = PageQuery(data=request.query_params)
    query.is_valid(raise_exception=True)
    return query.validated_data["limit"], query.validated_data["offset"]
