"""Who may log in with a password: the users of the file, and directories."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cvpnd.config.mfa import Mfa
from cvpnd.config.sockets import DirectoryUrl
from cvpnd.config.table import Table
from cvpnd.config.values import (
    LOCAL_DIRECTORY,
    AttributeName,
    FilePath,
    Flag,
    Group,
    Identifier,
    PasswordHash,
    Printable,
    UserName,
    whole,
)


class LocalUserConfig(Table):
    """A member of the directory "local"."""

    name: UserName
    password_hash: PasswordHash
    groups: tuple[Group, ...] = ()


LONGEST_IDLE_S = 300
"""Of connections to a directory that users have bound."""


class DirectoryConfig(Table):
    """Users and groups in LDAP servers, which all have the same ones."""

    id: Identifier
    type: Literal["active-directory", "openldap"]
    servers: tuple[DirectoryUrl, ...] = Field(min_length=1, max_length=16)
    """Asked in this order, those that are down last."""
    ca: FilePath | None = None
    """None: the authorities that this host trusts."""
    bind: Literal["service", "direct"] = "service"
    """Who looks users up: an account for that, or each user."""
    bind_dn: Printable | None = None
    bind_password_file: FilePath | None = None
    """Both of the service account."""
    bind_name: Printable | None = None
    """What ``{user}`` binds as. None: made from what the directory is, see ``direct_name``."""
    user_base: Printable = Field(min_length=1)
    group_base: Printable = ""
    """Empty: the whole domain, or ``user_base``, see ``auth.ldap_directory``."""
    user_attribute: AttributeName | None = None
    """What users are called. None, here and in the next: as ``type`` has it."""
    group_attribute: AttributeName | None = None
    domains: tuple[Printable, ...] = ()
    """What may stand before a backslash or behind an @ in a user name."""
    mfa: Mfa = "off"
    """Of endpoints that do not say themselves."""
    timeout_s: int = whole(5, 1, 60)
    """For each step with a server."""
    recheck_s: int = whole(900, 1, 86_400)
    """How often the accounts of live sessions are looked at again."""
    unchecked_s: int = whole(3600, 1, 86_400)
    """With ``bind = "direct"``: how long sessions go on whose accounts cannot be looked at any more."""
    keep_passwords: Flag = True
    """With ``bind = "direct"``: sealed, see ``auth.kept_passwords``."""

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        if value == LOCAL_DIRECTORY:
            raise ValueError(f'"{LOCAL_DIRECTORY}" is the directory of [[local_users]]; choose another id')
        return value

    @model_validator(mode="after")
    def _check_bind(self) -> Self:
        for key in ("bind_dn", "bind_password_file"):
            if self.bind == "service" and not getattr(self, key):
                raise ValueError(f'bind = "service" needs {key}; add {key} = … (conf/cvpnd.toml explains it)')
            if self.bind == "direct" and getattr(self, key) is not None:
                raise ValueError(f'bind = "direct" has no {key}, as users bind themselves; leave it away')
        if self.bind == "service" and "keep_passwords" in self.model_fields_set:
            raise ValueError('keep_passwords is for bind = "direct", none is kept otherwise; leave it away')
        if self.bind == "service" and self.bind_name is not None:
            raise ValueError('bind_name is for bind = "direct"; leave it away')
        if self.bind == "direct" and self.bind_name is None and self.type == "active-directory" and not self.domains:
            raise ValueError('bind = "direct" does not know what users bind as; add domains, or bind_name = "{user}@…"')
        if self.bind_name is not None and self.bind_name.count("{user}") != 1:
            raise ValueError(f'bind_name "{self.bind_name}" has to contain {{user}} once; write it where the name goes')
        if self.bind_name is not None and self.type == "openldap" and "=" not in self.bind_name:
            raise ValueError(f'bind_name "{self.bind_name}" is no DN; write one like "uid={{user}},{self.user_base}"')
        return self

    @property
    def keeps_passwords(self) -> bool:
        return self.bind == "direct" and self.keep_passwords

    @property
    def looks_every_s(self) -> int:
        """Users' own connections must not be idle for long: Active Directory closes them after 15 minutes."""
        return min(self.recheck_s, LONGEST_IDLE_S) if self.bind == "direct" else self.recheck_s

    @property
    def direct_name(self) -> str:
        """With ``bind = "direct"``."""
        if self.bind_name is not None:
            return self.bind_name
        if self.type == "openldap":
            return f"{self.user_attribute or 'uid'}={{user}},{self.user_base}"
        realm = next((domain for domain in self.domains if "." in domain), None)
        return f"{{user}}@{realm}" if realm is not None else f"{self.domains[0]}\\{{user}}"
