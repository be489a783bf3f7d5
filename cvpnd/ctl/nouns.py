"""What can be typed behind ``cvpnctl``, and where it is. To read every file and make every command took longer than to
carry one out, so a file is read when its command is typed."""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

PLACES = {
    "status": "status.status",
    "top": "status.top",
    "doctor": "doctor.doctor",
    "support-bundle": "support_bundle.support_bundle",
    "profile": "profile.make_profile",
    "explain": "explain.explain",
    "audit": "audit.audit",
    "reload": "reload.reload",
    "endpoint": "endpoint.app",
    "network": "network.app",
    "connection": "connection.app",
    "rule": "rule.app",
    "route": "route.app",
    "vpc": "vpc.vpcs",
    "subnet": "vpc.subnets",
    "security-group": "security_group.app",
    "saml-provider": "saml_provider.app",
    "certificate": "certificate.app",
    "crl": "crl.app",
    "client-key": "client_key.app",
    "log": "log.app",
    "tag": "tag.app",
    "user": "user.app",
    "access-key": "access_key.app",
}
"""What is typed -> the file here, and the function in it or the application of its verbs."""


class Nouns(TyperGroup):
    """The commands of ``PLACES``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands(PLACES)


class _Commands(UserDict[str, Any]):
    """Each is a place until somebody asks for it."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, str):
            found = self.data[name] = _command(name, found)
        return found


def _command(name: str, place: str) -> Any:
    file, attribute = place.split(".")
    found = getattr(import_module(f"cvpnd.ctl.{file}"), attribute)
    alone = typer.Typer(rich_markup_mode=None)  # it would take the name of a table, [[endpoint]], for markup
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]
