"""What logins are made of besides certificates: directories, RADIUS secrets and client connect handlers, opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cvpnd.auth.ldap_directory import LdapDirectory, open_directory
from cvpnd.auth.radius import RadiusSettings, radius_settings
from cvpnd.config import Config, DirectoryConfig, HandlerConfig, RadiusConfig
from cvpnd.handlers.desk import Handler
from cvpnd.handlers.opening import open_handler


@dataclass(frozen=True, slots=True)
class LoginParts:
    """Of one configuration, each by its table."""

    directories: Mapping[DirectoryConfig, LdapDirectory] = field(default_factory=dict)
    radius: Mapping[RadiusConfig, RadiusSettings] = field(default_factory=dict)
    handlers: Mapping[HandlerConfig, Handler] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Config, before: LoginParts, *, read: bool) -> Self:
        """From a thread. What was opened ``before`` is taken as it was, whatever has become of its files, unless all
        are to be ``read``. Raises ``DirectoryError``, ``HandlerError``."""
        known = LoginParts() if read else before
        return cls(
            {
                each: known.directories[each].anew() if each in known.directories else open_directory(each)
                for each in file.directories
            },
            {each: known.radius.get(each) or radius_settings(each) for each in file.radius},
            {each: known.handlers.get(each) or open_handler(each) for each in file.handlers},
        )
