"""From the file to a ``Config``, or to every mistake in the operator's words: ``FILE: key.path: problem; fix``."""

from __future__ import annotations

import os
import pwd
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cvpnd.config.crosscheck import Problem, cross_check, suggest
from cvpnd.config.file import Config
from cvpnd.config.files_read import FilesRead, digest_of
from cvpnd.config.values import SECRET_WORDS, show
from cvpnd.wire.wrap.key_files import KeyFileError, parse_static_key, parse_v2_server_key

NOT_OURS = "cannot be read by user"


class ConfigError(Exception):
    """The configuration cannot be used. ``str()`` lists every problem, one a line."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path = path
        self.problems = tuple(problems)
        """Without the file name."""


def load(path: Path | str) -> Config:
    """Read, check and cross-check one file. Raises ConfigError. Looks at no other file: see ``check_files``."""
    path = Path(path)
    content = _content(path)
    data = _parse(path, content)
    if "path" in data:
        raise ConfigError(path, [f"path: is not a key; {suggest('path', sorted(_keys(Config)))}"])
    try:
        config = Config.model_validate({**data, "path": path.absolute()}, context={"directory": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError(
            path, [_line(*_in_words(details)) for details in error.errors() if not _consequence(details)]
        ) from None
    config._digest = digest_of(content)
    if problems := cross_check(config):
        raise ConfigError(path, [_line(*problem) for problem in problems])
    return config


def check_files(config: Config) -> None:
    """Raise ConfigError unless every certificate and key file that the configuration names can be read here and now."""
    found = [(key, _unreadable(path)) for key, path in _files(config)]
    found += [(key, _unreadable(path) or _no_key(path, parse)) for key, path, parse in _control_keys(config)]
    if problems := [_line(key, problem) for key, problem in found if problem is not None]:
        raise ConfigError(config.path, problems)


def files_read(config: Config) -> FilesRead:
    """Make it before what the configuration names is read. Of what is not among them others look whether it changes
    (certificates, the control channel's keys, metadata, programs). Blocks."""
    watched = re.compile(r"endpoint\[|saml_provider\[\d+\]\.metadata|handler\[\d+\]\.executable")
    others = [path for key, path in _files(config) if not watched.match(key)]
    return FilesRead(config.path, config.digest, others)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(path, ["does not exist; make one with 'cvpnd init', or name another with --config"]) from None
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}; correct its path or permissions"]) from None


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(path, [f"line {line}: is not UTF-8; save the file as UTF-8"]) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [_syntax(str(error), text)]) from None


def _syntax(message: str, text: str) -> str:
    """tomllib says "Invalid value (at line 3, column 9)" or "… (at end of document)"."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    what, line, where = (
        (found[1], int(found[2]), f"line {found[2]}, column {found[3]}")
        if found
        else (message.removesuffix(" (at end of document)"), text.count("\n") + 1, "at the end of the file")
    )
    lines = text.splitlines()
    source = lines[line - 1].strip() if found and line <= len(lines) else ""
    key, equals, _ = source.partition("=")
    if equals and any(word in key for word in SECRET_WORDS):
        source = f"{key}= …"
    return f"{where}: {what[:1].lower()}{what[1:]}; correct {show(source) if source else 'the last table or value'}"


def _line(key: str, problem: str) -> str:
    return f"{key}: {problem}" if key else problem


# -- pydantic's findings in words ---------------------------------------------------------------------------


def _key_path(location: Sequence[str | int]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _in_words(error: ErrorDetails) -> Problem:
    location = list(error["loc"])
    context: Mapping[str, Any] = error.get("ctx", {})
    value = show(error["input"])
    key = str(location[-1]) if location else ""
    match error["type"]:
        case "value_error":
            problem = str(context["error"])
        case "missing":
            problem = f"is missing; add {key} = … (conf/cvpnd.toml explains it)"
        case "extra_forbidden":
            problem = f"is not a key; {suggest(key, sorted(_keys(_table_at(location[:-1]))))}"
        case "literal_error":
            problem = f"{value} is not a choice; write {context['expected']}".replace("'", '"')
        case "int_type":
            problem = f"{value} is not a whole number; write one without quotes"
        case "bool_type":
            problem = f"{value} is neither true nor false; write one of them without quotes"
        case "string_type":
            problem = f"{value} is not text; write it in quotes"
        case "tuple_type" if len(location) == 1:
            problem = f"is a single table; write [[{key}]]"
        case "tuple_type":
            problem = f"{value} is not a list; put [ ] around it"
        case "model_type" | "model_attributes_type" | "dict_type":
            problem = f"{value} is not a table; write {{ key = value, … }}"
        case "greater_than_equal":
            problem = f"{value} is too small; choose at least {context['ge']}"
        case "less_than_equal":
            problem = f"{value} is too large; choose at most {context['le']}"
        case "too_short":
            problem = f"is empty; name at least {context['min_length']}"
        case "too_long":
            problem = f"has {context['actual_length'] or 'too many'} entries; keep at most {context['max_length']}"
        case _:
            problem = f"{error['msg'][:1].lower()}{error['msg'][1:]}; correct {value}"
    return _key_path(location), problem


def _consequence(error: ErrorDetails) -> bool:
    """A list all of whose entries are wrong counts as empty too; the entries have been told already."""
    return error["type"] == "too_short" and bool(error["input"])


def _keys(table: type[BaseModel]) -> Iterator[str]:
    for name, field in table.model_fields.items():
        if table is not Config or name != "path":
            yield field.alias or name


def _table_at(location: Sequence[str | int]) -> type[BaseModel]:
    """The model of the table at a key path."""
    table: type[BaseModel] = Config
    for part in location:
        if isinstance(part, str):
            field = next(field for name, field in table.model_fields.items() if part == (field.alias or name))
            table = _model_in(field.annotation)
    return table


def _model_in(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(model for argument in get_args(annotation) if (model := _model_in_or_none(argument)) is not None)


def _model_in_or_none(annotation: Any) -> type[BaseModel] | None:
    try:
        return _model_in(annotation)
    except StopIteration:
        return None


# -- the files it names -------------------------------------------------------------------------------------


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    for table, keys in (("api", config.api), ("portal", config.portal)):
        for key, path in ((f"{table}.certificate", keys.certificate), (f"{table}.private_key", keys.private_key)):
            if path is not None:
                yield key, path
    for index, directory in enumerate(config.directories):
        if directory.bind_password_file is not None:
            yield f"directory[{index}].bind_password_file", directory.bind_password_file
        if directory.ca is not None:
            yield f"directory[{index}].ca", directory.ca
    for index, provider in enumerate(config.saml_providers):
        for key in ("metadata", "metadata_ca", "signing_key"):
            if isinstance(path := getattr(provider, key), Path):
                yield f"saml_provider[{index}].{key}", path
    for index, handler in enumerate(config.handlers):
        for key in ("executable", "ca", "secret_file"):
            path = getattr(handler, key)
            if path is not None:
                yield f"handler[{index}].{key}", path
    for index, radius in enumerate(config.radius):
        yield f"radius[{index}].secret_file", radius.secret_file
    for index, endpoint in enumerate(config.endpoints):
        certificate = endpoint.server_certificate
        at = f"endpoint[{index}].server_certificate"
        yield f"{at}.certificate", certificate.certificate
        yield f"{at}.private_key", certificate.private_key
        if certificate.chain is not None:
            yield f"{at}.chain", certificate.chain
        for number, method in enumerate(endpoint.authentication):
            at = f"endpoint[{index}].authentication[{number}]"
            if method.client_ca is not None:
                yield f"{at}.client_ca", method.client_ca
            if method.crl is not None:
                yield f"{at}.crl", method.crl


def _control_keys(config: Config) -> Iterator[tuple[str, Path, Callable[[bytes], bytes]]]:
    for index, endpoint in enumerate(config.endpoints):
        at, protection = f"endpoint[{index}].control_protection", endpoint.control_protection
        if protection.tls_auth is not None:
            yield f"{at}.tls_auth.key", protection.tls_auth.key, parse_static_key
        if protection.tls_crypt is not None:
            yield f"{at}.tls_crypt.key", protection.tls_crypt.key, parse_static_key
        if protection.tls_crypt_v2 is not None:
            yield f"{at}.tls_crypt_v2.server_key", protection.tls_crypt_v2.server_key, parse_v2_server_key


def _no_key(path: Path, parse: Callable[[bytes], bytes]) -> str | None:
    try:
        parse(path.read_bytes())
    except KeyFileError as error:
        return f"{path} {error}"
    return None


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return f"{path} does not exist; make it ('cvpnd init' does what is in pki), or correct the path"
    except IsADirectoryError:
        return f"{path} is a directory; name a PEM file"
    except PermissionError:
        return f"{path} {NOT_OURS} {_own_name()}; chown it to the daemon's user (cvpnd), or run this as root"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}; correct the path"
    return None


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
