"""Active Directory and other LDAP directories: who somebody is, whether the password is right, which groups that means.

A service account finds the entry; a bind as that entry, on a connection of its own, says whether the password is right.
Where there is no service account, users bind as what their name says and read their own entry, at login and later on
(``ldap_bound``); then nobody is known here who has not logged in.
Names come as people type them (``user``, ``user@realm``, ``DOMAIN\\user``) and go into filters and DNs escaped."""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple, TypeVar

from ldap3.core.exceptions import LDAPException
from ldap3.protocol.formatters.formatters import format_sid
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from cvpnd.auth.directory import Account, DirectoryError
from cvpnd.auth.identity import Refused, problem_with_user_name
from cvpnd.auth.ldap import FAULTS, Entry, LdapServers, LdapSession, Unavailable, tls_context
from cvpnd.auth.ldap_bound import BoundUsers
from cvpnd.auth.ldap_reasons import bind_refusal, entry_refusal
from cvpnd.config import DirectoryConfig
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_GROUPS = 200
"""Of one user, as AWS: those beyond are left out. Each is known by two identifiers."""
MOST_GROUP_CHARACTERS = 255
NESTING = 10
NOBODY = "no-such-person-of-this-gateway"
UNUSED_LOOKS = 3
"""So many intervals without a look at a user who has bound, and the connection is closed: there is no session."""
_RDN = re.compile(r'(?:[^,"\\]|\\.|"(?:[^"\\]|\\.)*")+', re.DOTALL)
"""One part of a DN, up to a comma that is neither escaped nor quoted."""


class Kind(NamedTuple):
    """What two families of directories call things."""

    user_class: str
    user_name: str
    """The attribute whose value is the account's name, unless the settings name another."""
    group_name: str
    """The same of a group."""
    group_class: str
    """What no user fits."""
    stamps: tuple[str, ...]
    """The attribute that no two accounts ever share, and one that changes with the password."""
    state: tuple[str, ...]
    always_read: tuple[str, ...] = ()
    """Of those, what each account has for whoever may look at it: who is without is not let in."""
    mostly_read: tuple[str, ...] = ()
    """What it has as well, but at servers that have a part of it alone (a global catalog): that is told."""


ACTIVE_DIRECTORY = Kind(
    "(objectCategory=person)(objectClass=user)", "sAMAccountName", "sAMAccountName", "(objectClass=group)",
    ("objectGUID", "pwdLastSet"), ("userAccountControl", "accountExpires", "objectSid"),
    always_read=("userAccountControl",), mostly_read=("accountExpires", "pwdLastSet"),
)  # fmt: skip
OPENLDAP = Kind(
    "(objectClass=person)", "uid", "cn", "(!(objectClass=person))", ("entryUUID", "pwdChangedTime"),
    ("pwdAccountLockedTime", "pwdStartTime", "pwdEndTime", "nsAccountLock"),
)  # fmt: skip
KINDS = {"active-directory": ACTIVE_DIRECTORY, "openldap": OPENLDAP}


@dataclass(frozen=True, slots=True)
class LdapSettings:
    kind: Kind
    service: tuple[str, str] | None = field(repr=False)
    """Its name and password. None: users bind themselves, as ``direct_name`` says."""
    direct_name: str
    user_base: str
    group_base: str
    user_name: str
    """The attributes that name users and groups here."""
    group_name: str
    domains: frozenset[str] = frozenset()
    """In small letters: what may stand before a backslash or behind an @."""


def open_directory(config: DirectoryConfig) -> LdapDirectory:
    """Reads its files; connects to nobody. Raises ``DirectoryError``."""
    at = f"directory {config.id}"
    service = None
    if config.bind_dn is not None and config.bind_password_file is not None:
        service = config.bind_dn, _password_in(config.bind_password_file, at)
    try:
        context = tls_context(config.ca)
    except (OSError, ssl.SSLError) as error:
        raise DirectoryError(
            f"{at}: ca {config.ca} cannot be used: {error}; name a PEM file with certificates"
        ) from error
    kind = KINDS[config.type]
    settings = LdapSettings(
        kind, service, "" if service else config.direct_name, config.user_base, _groups_below(config),
        config.user_attribute or kind.user_name, config.group_attribute or kind.group_name,
        frozenset(domain.lower() for domain in config.domains),
    )  # fmt: skip
    servers = LdapServers(config.servers, context, config.timeout_s)
    return LdapDirectory(
        settings, servers, config.looks_every_s, config.unchecked_s, keeps_passwords=config.keeps_passwords
    )


def _groups_below(config: DirectoryConfig) -> str:
    """No two groups of a domain share a sAMAccountName, so by that they may be anywhere in it; a name of another kind
    only counts where somebody has said that it is to."""
    domain = ""
    if config.type == "active-directory" and config.group_attribute is None:
        domain = _domain_of(config.user_base)
    return config.group_base or domain or config.user_base


def _domain_of(dn: str) -> str:
    """The DC= at its end. ldap3's own parser refuses some names that directories write."""
    parts = [part.strip().partition("=") for part in _RDN.findall(dn)]
    domain = takewhile(lambda part: part[0].strip().upper() == "DC", reversed(parts))
    return ",".join(reversed([f"DC={value.strip()}" for _, _, value in domain]))


def _password_in(path: Path, at: str) -> str:
    try:
        password = path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{at}: bind_password_file {path} cannot be read: {error}") from error
    if not password:
        raise DirectoryError(f"{at}: bind_password_file {path} is empty; write the password into it")
    return password


class LdapDirectory:
    """A ``Directory``. Any thread may call it; each call has connections of its own."""

    at_once = 8
    """They wait for the network most of the time, and take turns at Python for the rest."""

    def __init__(
        self, settings: LdapSettings, servers: LdapServers, good_for_s: float, unchecked_s: float = 3600, *,
        keeps_passwords: bool = False,
    ) -> None:  # fmt: skip
        """``unchecked_s``: see ``BoundUsers``. ``keeps_passwords``: of who binds, until they are taken."""
        self._keeps_passwords = keeps_passwords
        self.good_for_s: float | None = good_for_s
        self._unchecked_s = unchecked_s
        self._settings = settings
        self._servers = servers
        self._unused_s = UNUSED_LOOKS * good_for_s
        self._bound = BoundUsers(unchecked_s, self._unused_s)
        self._told: set[str] = set()
        """Which attributes cannot be read."""

    @property
    def group_base(self) -> str:
        return self._settings.group_base

    def succeed(self, before: LdapDirectory) -> bool:
        """It comes in the place of ``before``, as after a reload. Who has logged in there has logged in here, provided
        that it is the same directory, which is what is returned: nobody else can be asked about them, and their
        sessions would end."""
        if (self._settings, self._servers.urls) != (before._settings, before._servers.urls):
            before.close()
            return False
        self._bound = before._bound
        self._bound.unchecked_s, self._bound.unused_s = self._unchecked_s, self._unused_s
        return True

    def anew(self) -> LdapDirectory:
        """One like it, from the same files as they were, that knows nobody yet."""
        servers = LdapServers(self._servers.urls, self._servers.context, self._servers.timeout_s)
        assert self.good_for_s is not None  # noqa: S101 - others than these have everybody in memory
        return LdapDirectory(
            self._settings, servers, self.good_for_s, self._unchecked_s, keeps_passwords=self._keeps_passwords
        )

    def close(self) -> None:
        self._bound.close()

    def servers_up(self) -> dict[str, bool]:
        return self._servers.health.up()

    def unchecked(self) -> int:
        return self._bound.unchecked()

    def log_in(self, username: str, password: Secret) -> Account | Refused:
        if self._settings.service is None:
            return self._log_in_directly(username, password)

        def ask(session: LdapSession) -> Account | Refused:
            entry = self._find(session, username)
            if isinstance(entry, Refused):
                session.bind_as(
                    f"cn={NOBODY},{self._settings.user_base}", Secret(NOBODY.encode())
                )  # takes as long as anybody
                return entry
            answer = session.bind_as(entry.dn, password)
            if (refusal := bind_refusal(answer)) is not None:
                return Refused(refusal, f"{entry.dn} at {session.url}: {answer.message or refusal}")
            return self._account(session, entry)

        return self._ask(ask)

    def look_up(self, username: str) -> Account | Refused:
        if self._settings.service is None:
            return self._bound.look_up(username, self._own_account)

        def ask(session: LdapSession) -> Account | Refused:
            entry = self._find(session, username)
            return entry if isinstance(entry, Refused) else self._account(session, entry)

        return self._ask(ask)

    def take_password(self, username: str) -> Secret | None:
        return self._bound.take_password(username)

    def wipe_passwords(self) -> None:
        self._bound.wipe_passwords()

    def unknown_groups(self, names: Iterable[str]) -> dict[str, str] | Refused:
        """Of what rules call groups, what none is called here, each with how one is written that may be meant, or
        nothing. Not asked about are SIDs, which may be another domain's. For a directory with a service account."""

        def ask(session: LdapSession) -> dict[str, str]:
            written = {name: self._groups_called(session, name) for name in names if not _is_sid(name)}
            return {name: next(iter(there), "") for name, there in written.items() if name not in there}

        return self._ask(ask)

    def _ask(self, ask: Callable[[LdapSession], T | Refused]) -> T | Refused:
        problems = []
        try:
            for session in self._servers.sessions(self._settings.service):
                try:
                    outcome = ask(session)
                except FAULTS as error:
                    problems.append(self._servers.failed(session, error))
                except LDAPException as error:
                    return Refused(Refusal.WRONG_PASSWORD, f"cannot be sent to {session.url}: {error}")
                else:
                    self._servers.keep(session)
                    return outcome
        except Unavailable as error:
            problems.append(str(error))
        return Refused(Refusal.DIRECTORY_UNAVAILABLE, "; ".join(problems))

    # -- without a service account --------------------------------------------------------------------------

    def _log_in_directly(self, username: str, password: Secret) -> Account | Refused:
        bind_name = self._bind_name(username)
        if not bind_name:
            return Refused(Refusal.USER_UNKNOWN, f"{username!r} is nobody's name here")

        def ask(session: LdapSession) -> Account | Refused:
            answer = session.bind_as(bind_name, password, stay=True)
            if (refusal := bind_refusal(answer)) is not None:
                return Refused(refusal, f"{bind_name} at {session.url}: {answer.message or refusal}")
            account = self._own_account(session, username, bind_name)
            if isinstance(account, Account):
                kept = password.copy() if self._keeps_passwords else None
                self._bound.add(username, bind_name, account, session.hand_over(), kept)
            return account

        return self._ask(ask)

    def _bind_name(self, typed: str) -> str:
        """Empty: nobody can be meant."""
        settings = self._settings
        domain, backslash, behind = typed.partition("\\")
        before, _, realm = typed.rpartition("@")
        if backslash:
            name = behind if domain.lower() in settings.domains else ""
        elif before and settings.kind is ACTIVE_DIRECTORY:
            return typed  # the directory knows which of its names that is
        else:
            name = before if before and realm.lower() in settings.domains else typed
        if not name:
            return ""
        is_dn = "=" in settings.direct_name
        return settings.direct_name.replace("{user}", escape_rdn(name) if is_dn else name)

    def _own_account(self, session: LdapSession, typed: str, bind_name: str) -> Account | Refused:
        entry = self._own_entry(session, typed, bind_name)
        return entry if isinstance(entry, Refused) else self._account(session, entry)

    def _own_entry(self, session: LdapSession, typed: str, bind_name: str) -> Entry | Refused:
        """Of whom the session is bound as, and of nobody else."""
        kind = self._settings.kind
        if "=" in self._settings.direct_name and bind_name != typed:
            found = session.search(bind_name, kind.user_class, self._attributes, only_base=True, most=1)
            return found[0] if found else Refused(Refusal.USER_UNKNOWN, f"{bind_name} is no user that may be read")
        entry = self._find(session, typed)
        if isinstance(entry, Refused):
            return entry
        root = session.search("", "(objectClass=*)", ["tokenGroups"], only_base=True, most=1)
        bound_as = {sid for each in root for sid in each.attributes.get("tokengroups", [])}
        if not bound_as.intersection(entry.attributes.get("objectsid", [])):
            return Refused(Refusal.USER_UNKNOWN, f"{bind_name} has bound as somebody else than {entry.dn}")
        return entry

    # -- who it is ------------------------------------------------------------------------------------------

    @property
    def _attributes(self) -> list[str]:
        kind = self._settings.kind
        return list(dict.fromkeys((self._settings.user_name, kind.user_name, *kind.stamps, *kind.state)))

    def _find(self, session: LdapSession, typed: str) -> Entry | Refused:
        for wanted in self._filters(typed):
            entries = session.search(self._settings.user_base, wanted, self._attributes, most=2)
            if len(entries) > 1:
                return Refused(Refusal.USER_UNKNOWN, f"{typed!r} fits {entries[0].dn} and others")
            if entries:
                return entries[0]
        return Refused(Refusal.USER_UNKNOWN, f"nobody below {self._settings.user_base} is called {typed!r}")

    def _filters(self, typed: str) -> list[str]:
        """To be tried in turn: none of them can find an account by another's kind of name."""
        kind, domains, user_name = self._settings.kind, self._settings.domains, self._settings.user_name
        domain, backslash, behind = typed.partition("\\")
        if backslash:
            return [self._filter(user_name, behind)] if behind and domain.lower() in domains else []
        before, _, realm = typed.rpartition("@")
        own = bool(before) and realm.lower() in domains
        if kind is ACTIVE_DIRECTORY and before:
            tried = [self._filter("userPrincipalName", typed)]
            return [*tried, self._filter(user_name, before)] if own else tried
        name = before if own else typed
        return [self._filter(user_name, name)] if name else []

    def _filter(self, attribute: str, value: str) -> str:
        return f"(&{self._settings.kind.user_class}({attribute}={escape_filter_chars(value)}))"

    def _account(self, session: LdapSession, entry: Entry) -> Account | Refused:
        kind = self._settings.kind
        if unread := next((each for each in kind.always_read if not entry.text(each)), ""):
            return Refused(
                Refusal.ACCOUNT_UNCHECKED,
                f"{unread} of {entry.dn} cannot be read at {session.url}, so nobody would see that it is disabled; "
                "whoever is bound needs the right to read it (in Active Directory: Read Account Restrictions)",
            )
        if (refusal := entry_refusal(entry)) is not None:
            return Refused(refusal, entry.dn)
        for unread in (each for each in kind.mostly_read if not entry.text(each)):
            self._tell_once(
                unread, f"{session.url}: {unread} of {entry.dn} cannot be read: that it changes is noticed at the next "
                "login with a password, and by no session or token before; ask a domain controller and not its global "
                "catalog, and let whoever is bound read it",
            )  # fmt: skip
        name = self._name_of(session, entry)
        if isinstance(name, Refused):
            return name
        person = next(iter(entry.attributes.get(kind.stamps[0].lower(), [])), b"")
        stamps = [value for attribute in kind.stamps for value in entry.attributes.get(attribute.lower(), [])]
        groups = self._groups_of_ad(session, entry) if kind is ACTIVE_DIRECTORY else self._groups(session, entry)
        stamp = hashlib.sha256(b"\0".join([entry.dn.lower().encode(), *stamps])).digest()
        return Account(name, groups, stamp, person)

    def _name_of(self, session: LdapSession, entry: Entry) -> str | Refused:
        """Whoever may write a name into their own entry shall not choose another person's: of several the one in the DN
        counts, else the first, and no other entry may have it. Nor one that could pass for another in a log."""
        attribute = self._settings.user_name
        names = entry.texts(attribute)
        if not names or not names[0]:
            return Refused(Refusal.USER_UNKNOWN, f"{entry.dn} has no {attribute}")
        name = next((value for value in names if _names(entry.dn, attribute, value)), names[0])
        if (problem := problem_with_user_name(name)) is not None:
            return Refused(Refusal.USER_UNKNOWN, f"the {attribute} of {entry.dn} {problem}")
        wanted = self._filter(attribute, name)
        if len(names) > 1 and len(session.search(self._settings.user_base, wanted, [attribute], most=2)) > 1:
            return Refused(Refusal.USER_UNKNOWN, f"{name!r}, of {entry.dn}, is the name of others too")
        return name

    # -- its groups, by every name that a rule may have for them ----------------------------------------------

    def _groups_of_ad(self, session: LdapSession, entry: Entry) -> frozenset[str]:
        """By SID, nested ones and the primary one too, and by the names of those."""
        found = session.search(entry.dn, "(objectClass=*)", ["tokenGroups"], only_base=True, most=1)
        sids = [format_sid(value) for each in found for value in each.attributes.get("tokengroups", [])]
        if not sids:  # everybody has a primary group
            self._tell_once(
                "tokenGroups", f"{session.url}: tokenGroups of {entry.dn} cannot be read, so no rule for a group lets "
                "them in; whoever is bound needs to be in Windows Authorization Access Group",
            )  # fmt: skip
            return frozenset()
        its_own = "".join(f"(objectSid={sid})" for sid in sids[:MOST_GROUPS])
        wanted, attribute = f"(&{self._settings.kind.group_class}(|{its_own}))", self._settings.group_name
        named = session.search(self._settings.group_base, wanted, [attribute, "objectSid"], most=MOST_GROUPS)
        names = {
            format_sid(sid): group.text(attribute)
            for group in named if self._is_of_domain(group)
            for sid in group.attributes.get("objectsid", [])
        }  # fmt: skip
        return _known_as((sid, names.get(sid, "")) for sid in sids)

    def _tell_once(self, attribute: str, what: str) -> None:
        if attribute not in self._told:
            self._told.add(attribute)
            log.warning("%s (told once)", what)

    def _groups(self, session: LdapSession, entry: Entry) -> frozenset[str]:
        """By DN and by name. A group's groups are walked: memberOf has the direct ones alone."""
        names: dict[str, str] = {}  # by DN as a rule would write it
        attribute = self._settings.group_name
        level = [entry.dn]
        uids = entry.texts(self._settings.kind.user_name)  # of several, none that others may have as well
        uid = next((uid for uid in uids if len(uids) == 1 or _names(entry.dn, self._settings.kind.user_name, uid)), "")
        unix = f"(&(objectClass=posixGroup)(memberUid={escape_filter_chars(uid)}))" if uid else ""
        for _ in range(NESTING):
            members = "".join(
                f"({member}={escape_filter_chars(dn)})" for dn in level for member in ("member", "uniqueMember")
            )
            found = session.search(self._settings.group_base, f"(|{members}{unix})", [attribute], most=MOST_GROUPS)
            unix = ""
            level = [group.dn for group in found if group.dn not in names]
            names |= {group.dn: group.text(attribute) for group in found}
            if not level or len(names) >= MOST_GROUPS:
                break
        return _known_as(names.items())

    def _groups_called(self, session: LdapSession, name: str) -> list[str]:
        """As they are written there."""
        settings = self._settings
        is_dn = settings.kind is OPENLDAP and "=" in name
        attribute = "entryDN" if is_dn else settings.group_name
        wanted = f"(&{settings.kind.group_class}({attribute}={escape_filter_chars(name)}))"
        found = session.search(settings.group_base, wanted, [attribute], most=MOST_GROUPS)
        if settings.kind is ACTIVE_DIRECTORY:
            found = [group for group in found if self._is_of_domain(group)]
        return [group.dn if is_dn else group.text(attribute) for group in found]

    def _is_of_domain(self, group: Entry) -> bool:
        """A global catalog knows those of other domains too, which may have the same names."""
        return _domain_of(group.dn).lower() == _domain_of(self._settings.group_base).lower()


def _names(dn: str, attribute: str, value: str) -> bool:
    """Whether the entry is called so in its DN, which no two have."""
    first = f"{attribute}={escape_rdn(value)}".lower()
    return dn.lower().startswith((f"{first},", f"{first}+"))


def _is_sid(name: str) -> bool:
    return name.upper().startswith("S-1-")


def _known_as(groups: Iterable[tuple[str, str]]) -> frozenset[str]:
    """What rules may call the first of them, each of which has a DN or SID and a name. A name is what people chose, who
    shall not choose another group's DN or SID."""
    known: set[str] = set()
    for unique, name in islice(groups, MOST_GROUPS):
        known.add(unique)
        if not ("=" in name or _is_sid(name)):
            known.add(name)
    return frozenset(each for each in known if 0 < len(each) <= MOST_GROUP_CHARACTERS)
