"""Fields of the API that are refused until they have an effect: accepting them silently would be a lie.

A feature that becomes real adds its field to the kind's view and removes its line here.
"""

from collections.abc import Mapping

REFUSED: Mapping[str, Mapping[str, str]] = {
    "ModelRoute": {
        "spec.rateLimit": "token limits are not supported yet; remove this field",
        "spec.parentRefs": "attaching to a Gateway is not supported yet; remove this field: "
        "the route then applies to every request",
        "spec.rules[].targetModels[].externalModelProviderName": "external model providers are not "
        "supported yet; name a ModelServer in modelServerName",
    },
    "ModelServer": {},
    "Pod": {},
}
"""Kind to field path (list positions left out) to what the user should do instead."""
