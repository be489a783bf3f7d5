"""The admin socket's application: all nouns under ``/v1``."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from cvpnd.api.rest.access_keys import access_key_routes
from cvpnd.api.rest.audit import audit_routes
from cvpnd.api.rest.authenticators import authenticator_routes
from cvpnd.api.rest.certificates import certificate_routes
from cvpnd.api.rest.client_keys import client_key_routes
from cvpnd.api.rest.connections import connection_routes
from cvpnd.api.rest.daemon import daemon_routes
from cvpnd.api.rest.endpoints import endpoint_routes
from cvpnd.api.rest.errors import EXCEPTION_HANDLERS, FailureMiddleware
from cvpnd.api.rest.explain import explain_routes
from cvpnd.api.rest.imported_certificates import imported_certificate_routes
from cvpnd.api.rest.log_groups import log_group_routes
from cvpnd.api.rest.networks import network_routes
from cvpnd.api.rest.openapi import openapi_route
from cvpnd.api.rest.profiles import profile_routes
from cvpnd.api.rest.routes import route_routes
from cvpnd.api.rest.rules import rule_routes
from cvpnd.api.rest.saml_providers import saml_provider_routes
from cvpnd.api.rest.security_groups import security_group_routes
from cvpnd.api.rest.status import status_routes
from cvpnd.api.rest.tags import tag_routes
from cvpnd.api.rest.users import user_routes
from cvpnd.endpoints.service import Operations
from cvpnd.store.actor import Actor, acting


class ActingMiddleware:
    """Names the local user behind the socket for the audit record (``api.server`` asked the kernel who it is)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("state", {}).get("peer")
        if peer is not None:
            acting.set(Actor(who=f"uid:{peer.uid}", source=f"admin-socket pid:{peer.pid}"))
        await self._app(scope, receive, send)


def build_admin_app(operations: Operations) -> Starlette:
    """Whoever may connect to the socket may do everything: the socket's mode and group are the access control."""
    nouns = [
        *endpoint_routes(operations),
        *connection_routes(operations),
        *rule_routes(operations),
        *route_routes(operations),
        *certificate_routes(operations),
        *client_key_routes(operations),
        *profile_routes(operations),
        *explain_routes(operations),
        *network_routes(operations),
        *security_group_routes(operations),
        *saml_provider_routes(operations),
        *imported_certificate_routes(operations),
        *log_group_routes(operations),
        *tag_routes(operations),
        *user_routes(operations),
        *authenticator_routes(operations),
        *access_key_routes(operations),
        *audit_routes(operations),
        *daemon_routes(operations),
        *status_routes(operations),
    ]
    return Starlette(
        routes=[Mount("/v1", routes=[*nouns, openapi_route(nouns)])],
        middleware=[Middleware(ActingMiddleware), Middleware(FailureMiddleware)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
