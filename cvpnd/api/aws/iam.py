"""IAM: SAML identity providers."""

from __future__ import annotations

from cvpnd.api.aws.call import Answer, Call, moment
from cvpnd.api.aws.errors import ApiError
from cvpnd.endpoints.model import SamlProviderView

_NOT_HERE = (
    "AddPrivateKey",
    "AssertionEncryptionMode",
    "ContextProvider",
    "IdentityCenterInstanceArn",
    "RemoveContextProvider",
    "RemoveIdentityCenterInstance",
    "RemovePrivateKey",
    "Tags",
)


async def create_saml_provider(call: Call) -> Answer:
    _refuse_what_is_not_there(call)
    view = await call.operations.create_saml_provider(call.get("Name"), call.get("SAMLMetadataDocument"))
    return {"SAMLProviderArn": view.arn}


async def update_saml_provider(call: Call) -> Answer:
    _refuse_what_is_not_there(call)
    if "SAMLMetadataDocument" not in call.parameters:
        raise ApiError("ValidationError", "SAMLMetadataDocument: must be given")
    view = await call.operations.update_saml_provider(call.get("SAMLProviderArn"), call.get("SAMLMetadataDocument"))
    return {"SAMLProviderArn": view.arn}


async def get_saml_provider(call: Call) -> Answer:
    view = await call.operations.show_saml_provider(call.get("SAMLProviderArn"))
    return {"SAMLMetadataDocument": view.metadata or None, **_dates(view)}


async def list_saml_providers(call: Call) -> Answer:
    return {"SAMLProviderList": [_entry(view) for view in await call.operations.list_saml_providers()]}


async def delete_saml_provider(call: Call) -> Answer:
    await call.operations.delete_saml_provider(call.get("SAMLProviderArn"))
    return {}


def _entry(view: SamlProviderView) -> Answer:
    return {"Arn": view.arn, **_dates(view)}


def _dates(view: SamlProviderView) -> Answer:
    return {
        "CreateDate": None if view.created_at is None else moment(view.created_at),
        "ValidUntil": None if view.valid_until is None else moment(view.valid_until),
    }


def _refuse_what_is_not_there(call: Call) -> None:
    for name in _NOT_HERE:
        if call.get(name):
            raise ApiError("ValidationError", f"{name}: this gateway does not have that; leave it away")


HANDLERS = {
    "CreateSAMLProvider": create_saml_provider,
    "UpdateSAMLProvider": update_saml_provider,
    "GetSAMLProvider": get_saml_provider,
    "ListSAMLProviders": list_saml_providers,
    "DeleteSAMLProvider": delete_saml_provider,
}
