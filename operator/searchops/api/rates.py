"""A merchant's rates as the gateway learns them: one flat value in the metadata of the tenant's collection.

The gateway holds nothing of its own and sees no SearchTenant; it reads the collection's metadata with the caller's own
token anyway, so that is where the rates travel. Strict mode cannot carry them: it counts read tokens and points a
shard, never below the largest batch, and its rates are lifted during a rebuild, when the merchant's are not.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from searchops.api.meta import ApiModel

RATES_KEY = "searchops.dev/rates"


class MerchantRates(ApiModel):
    """What a merchant may do in a minute; 0 means no bound.

    Attributes:
        searches_per_minute: searches.
        writes_per_minute: products written or deleted.
        max_points: products in all, where no strict mode bounds them because tenants share the collection.
    """

    searches_per_minute: Annotated[int, Field(ge=0)] = 0
    writes_per_minute: Annotated[int, Field(ge=0)] = 0
    max_points: Annotated[int, Field(ge=0)] = 0

    def to_wire(self) -> dict[str, Any]:
        """What the gateway shows; the bound on products only where it is the gateway's."""
        return self.model_dump(by_alias=True, mode="json", exclude=None if self.max_points else {"max_points"})

    def to_metadata(self) -> str:
        """The one flat value of the metadata key, canonical so that equal rates are equal strings."""
        return self.model_dump_json(by_alias=True, exclude=None if self.max_points else {"max_points"})

    @classmethod
    def from_metadata(cls, text: str) -> MerchantRates:
        """The rates that `to_metadata` wrote.

        Raises:
            pydantic.ValidationError: where the value is not rates.
        """
        return cls.model_validate_json(text)
