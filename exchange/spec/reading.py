"""From TOML, or the environment, to settings; every mistake is named."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from exchange.documents import Document, problems
from exchange.errors import SettingsError
from exchange.keys import FEDERATION
from exchange.spec.client import ClientSettings
from exchange.spec.federation import FederationSettings
from exchange.spec.parent import ParentSettings

_Settings = TypeVar("_Settings", bound=Document)


def check_identifier(name: str) -> None:
    """Raise SettingsError unless `name` can be the name of a federation."""
    if len(name) > 63 or not re.fullmatch(FEDERATION, name, re.ASCII):
        raise SettingsError(
            "name", [f"expected 1 to 63 lower-case letters, digits and inner hyphens, and not 'ledger', got {name!r}"]
        )


def read_federation(path: Path) -> FederationSettings:
    """Return the settings in federation.toml; raises SettingsError with every mistake."""
    return validate(FederationSettings, read_toml(path), str(path))


def read_client(path: Path) -> ClientSettings:
    """Return the settings in client.toml; raises SettingsError with every mistake."""
    return validate(ClientSettings, read_toml(path), str(path))


def client_from_environment(environment: Mapping[str, str]) -> ClientSettings:
    """Return the settings in FEDBUCKET_CLIENT, the text of a client.toml; raises SettingsError with every mistake."""
    return _from_environment(ClientSettings, environment, "FEDBUCKET_CLIENT", "client.toml")


def parent_from_environment(environment: Mapping[str, str]) -> ParentSettings:
    """Return the settings in FEDBUCKET_PARENT, the text of a parent.toml; raises SettingsError with every mistake."""
    return _from_environment(ParentSettings, environment, "FEDBUCKET_PARENT", "parent.toml")


def validate(kind: type[_Settings], content: Mapping[str, Any], source: str) -> _Settings:
    """Return `content` as `kind`; raises SettingsError with every mistake, said to be in `source`."""
    try:
        # By way of JSON, so that TOML and JSON settings are held to the same, strict, types.
        text = json.dumps(content, default=str)
    except (ValueError, RecursionError) as error:
        raise SettingsError(source, [f"a number too long, or tables nested too deep: {error}"]) from error
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(source, problems(error, content)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raises SettingsError."""
    try:
        return _parse_toml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), [f"expected text in UTF-8, save it as that: {error}"]) from error
    except OSError as error:
        raise SettingsError(str(path), [f"cannot be read: {error.strerror or error}"]) from error


def _from_environment(kind: type[_Settings], environment: Mapping[str, str], variable: str, file: str) -> _Settings:
    if (text := environment.get(variable)) is None:
        raise SettingsError("environment", [f"{variable}: expected the text of a {file}, got nothing"])
    return validate(kind, _parse_toml(text, variable), variable)


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))  # a byte-order mark, with which Windows begins a text
    except (ValueError, RecursionError) as error:  # besides TOMLDecodeError: a number too long, arrays nested too deep
        raise SettingsError(source, [f"not TOML: {error}"]) from error
