"""The API description, and a page that shows it without loading anything from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_TENANT = {
    "name": "tenant",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "<namespace>.<name> of the SearchTenant",
}
_PROBLEM = {"description": "RFC 9457 problem", "content": {"application/problem+json": {"schema": {"type": "object"}}}}
_ERRORS = {str(code): _PROBLEM for code in (400, 401, 403, 413, 429, 503)}


def _operation(summary: str, body: dict[str, Any] | None, answer: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": summary,
        "security": [{"tenantToken": []}],
        "responses": {"200": {"description": answer}, **_ERRORS},
    }
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    return made


_SEARCH = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["query"],
            "properties": {
                "query": {"type": "string", "maxLength": 512},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                "filters": {"type": "object"},
                "explain": {"type": "boolean", "default": False},
            },
        }
    }
}
_PRODUCT = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
_PRODUCTS = {
    "application/json": {"schema": {"type": "array", "items": _PRODUCT}},
    "application/x-ndjson": {"schema": {"type": "string"}},
}
_IDS = {"application/json": {"schema": {"type": "object", "properties": {"ids": {"type": "array"}}}}}

OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "searchops gateway", "version": "v1"},
    "components": {"securitySchemes": {"tenantToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}},
    "paths": {
        "/v1/tenants/{tenant}/search": {
            "parameters": [_TENANT],
            "post": _operation("Search", _SEARCH, "Hits with the legs that found them"),
        },
        "/v1/tenants/{tenant}/products": {
            "parameters": [_TENANT],
            "put": _operation("Write products", _PRODUCTS, "How many were written; 207 with what was rejected"),
            "delete": _operation("Delete products", _IDS, "How many were deleted"),
        },
        "/v1/tenants/{tenant}": {
            "parameters": [_TENANT],
            "get": _operation("What the tenant is bound to", None, "Binding, pending and previous side"),
        },
    },
}


def _rows() -> str:
    rows = []
    for path, item in OPENAPI["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                cells = (method.upper(), path, operation["summary"], operation["responses"]["200"]["description"])
                rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return "".join(rows)


PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>searchops gateway</title>"
    "<style>body{font:16px system-ui;margin:3rem}td{padding:.3rem 1rem .3rem 0;font-family:monospace}</style>"
    f"<h1>searchops gateway</h1><table>{_rows()}</table><p><a href=/openapi.json>openapi.json</a></p></html>"
)
