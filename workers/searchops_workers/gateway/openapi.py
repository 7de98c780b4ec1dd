"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops_workers.gateway.bodies import SearchBody
from searchops_workers.gateway.problems import TITLES

if TYPE_CHECKING:
    from searchops_workers.gateway.settings import GatewaySettings

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>searchops gateway</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
code,pre{font-family:ui-monospace,monospace;background:#f3f3f3}pre{padding:.7rem;overflow:auto}</style></head><body>
<h1>searchops gateway</h1>
<p>Every call carries <code>Authorization: Bearer &lt;token&gt;</code>, the value of <code>token</code> in the tenant's
access Secret. <code>{t}</code> is <code>&lt;namespace&gt;.&lt;name&gt;</code> of the SearchTenant.
The whole contract: <a href="/openapi.json">/openapi.json</a>.</p>
<h2>Search</h2><pre>curl -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{"query": "m12 ss nut", "limit": 10, "filters": {"price": {"lte": 20}}}' \\
  $GATEWAY/v1/tenants/merchants-eu.acme-fasteners/search</pre>
<h2>Index</h2><pre>curl -X PUT -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/x-ndjson' \\
  --data-binary @products.ndjson $GATEWAY/v1/tenants/merchants-eu.acme-fasteners/products</pre>
<h2>Delete</h2><pre>curl -X DELETE -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{"ids": ["p1", "p2"]}' $GATEWAY/v1/tenants/merchants-eu.acme-fasteners/products</pre>
<h2>Tenant</h2><pre>curl -H "Authorization: Bearer $TOKEN" $GATEWAY/v1/tenants/merchants-eu.acme-fasteners</pre>
</body></html>
"""

_PRODUCT = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"oneOf": [{"type": "string", "maxLength": 256}, {"type": "integer"}]},
        "title": {"type": "string"},
        "attributes": {"type": "object"},
    },
    "additionalProperties": True,
    "description": "Any JSON object with an id; keys _id, _version, _deleted, _missed and _tenant are reserved.",
}
_HIT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "score": {"type": "number"},
        "legs": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "Rank in each leg."},
        "product": {"type": "object"},
    },
}
_SEARCH_ANSWER = {
    "type": "object",
    "required": ["hits", "legs", "degraded", "route", "revision", "binding"],
    "properties": {
        "hits": {"type": "array", "items": _HIT},
        "legs": {"type": "array", "items": {"enum": ["lex", "tri", "dense"]}},
        "degraded": {"type": "boolean", "description": "The encoder did not answer: the lexical legs stand alone."},
        "route": {"type": "string", "description": "Why these legs."},
        "revision": {"type": ["string", "null"]},
        "binding": {"type": "object"},
    },
}
_NAMED_ITEM = {"type": "object", "properties": {"index": {"type": "integer"}, "id": {"type": "string"}}}
_REJECTED_ITEM = {
    "type": "object",
    "properties": {
        "index": {"type": "integer"},
        "id": {"type": ["string", "null"]},
        "detail": {"type": "string"},
    },
}
_BULK_ANSWER = {
    "type": "object",
    "properties": {
        "written": {"type": "integer", "description": "For PUT."},
        "deleted": {"type": "integer", "description": "For DELETE."},
        "rejected": {"type": "array", "items": _REJECTED_ITEM},
        "superseded": {"type": "array", "items": {"type": "integer"}},
        "version": {"type": "integer"},
        "sides": {"type": "integer"},
        "missedPrevious": {"type": "string"},
    },
}
_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "tenant": {"type": "string", "description": "Whose limit it is (429, 413, 422), or who cannot write (507)."},
        "limit": {
            "type": "object",
            "properties": {
                "field": {"type": "string"},
                "perMinute": {"type": "integer"},
                "enforcedBy": {"type": "string", "description": "Database where its strict mode refused."},
            },
            "description": "Which limit of the SearchTenant, and how much it allows.",
        },
        "cell": {"type": "string", "description": "Which cell is out of disk or memory (507): no tenant's limit."},
        "acknowledged": {"type": "integer", "description": "Valid items of a bulk request that were written before."},
        "unacknowledged": {"type": "array", "items": _NAMED_ITEM, "description": "The others: send them again."},
        "rejected": {"type": "array", "items": _REJECTED_ITEM, "description": "Items that are not valid."},
    },
}


def openapi_document(settings: GatewaySettings) -> dict[str, Any]:
    """OpenAPI 3.1 with the bounds that are in force."""
    tenant = {
        "name": "tenant",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "<namespace>.<name> of the SearchTenant",
    }
    bulk = {
        "parameters": [tenant],
        "put": _operation(
            "Insert or replace products",
            _bulk_body("products", _PRODUCT, settings.max_products),
            {"200": _BULK_ANSWER, "207": _BULK_ANSWER},
            (400, 401, 403, 404, 413, 415, 422, 429, 503, 504, 507),
        ),
        "delete": _operation(
            "Delete products by id",
            _bulk_body("ids", {"oneOf": [{"type": "string"}, {"type": "integer"}]}, settings.max_products),
            {"200": _BULK_ANSWER, "207": _BULK_ANSWER},
            (400, 401, 403, 404, 413, 415, 422, 429, 503, 504, 507),
        ),
    }
    search = _operation(
        "Search",
        {"required": True, "content": {"application/json": {"schema": _search_schema(settings)}}},
        {"200": _SEARCH_ANSWER},
        (400, 401, 403, 404, 413, 422, 429, 503, 504),
    )
    about = _operation("What the tenant is bound to", None, {"200": {"type": "object"}}, (401, 403, 404, 503))
    return {
        "openapi": "3.1.0",
        "info": {"title": "searchops gateway", "version": "v1"},
        "security": [{"tenantToken": []}],
        "components": {"securitySchemes": {"tenantToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}},
        "paths": {
            "/v1/tenants/{tenant}/search": {"parameters": [tenant], "post": search},
            "/v1/tenants/{tenant}/products": bulk,
            "/v1/tenants/{tenant}": {"parameters": [tenant], "get": about},
        },
    }


def _search_schema(settings: GatewaySettings) -> dict[str, Any]:
    schema = SearchBody.model_json_schema(ref_template="#/paths/~1v1~1tenants~1{{tenant}}~1search/{model}")
    bounds = schema.pop("$defs")["Bounds"]
    options = schema["properties"]["filters"]["additionalProperties"]["anyOf"]
    schema["properties"]["filters"]["additionalProperties"]["anyOf"] = [
        bounds if "$ref" in option else option for option in options
    ]
    schema["properties"]["limit"]["maximum"] = settings.max_limit
    return schema


def _bulk_body(kind: str, item: dict[str, Any], max_products: int) -> dict[str, Any]:
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": max_products}
    wrapped = {"type": "object", "required": [kind], "properties": {kind: items}}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [wrapped, items]}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "one JSON object a line"}},
        },
    }


def _operation(
    summary: str, body: dict[str, Any] | None, answers: dict[str, dict[str, Any]], problems: tuple[int, ...]
) -> dict[str, Any]:
    responses: dict[str, Any] = {
        status: {"description": summary, "content": {"application/json": {"schema": schema}}}
        for status, schema in answers.items()
    }
    for status in problems:
        responses[str(status)] = {
            "description": TITLES[status],
            "content": {"application/problem+json": {"schema": _PROBLEM}},
        }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = body
    return operation
