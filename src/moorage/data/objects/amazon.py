"""Keys as Amazon's own tools find them: the environment, then a profile of `~/.aws`, whose keys
stand there or come from a program. What else a profile may say (roles to take on, single sign-on)
is boto3's business, where that is installed."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from moorage.data.objects.errors import StoreProblem
from moorage.specs.stores.record import Access, Profile

_PATIENCE = 60
"""Seconds that a program which prints credentials may take; some ask people."""
_BEYOND_US = ("role_arn", "sso_session", "sso_start_url", "sso_account_id", "login_session")


def completed(
    access: Access, environ: Mapping[str, str], home: Path, profile: Profile | None
) -> Access:
    """The access with keys, and with region and endpoint where it has none. StoreProblem where a
    profile was named that is not there, or cannot be used."""
    if profile is None and environ.get("AWS_ACCESS_KEY_ID"):
        return _with_region(replace(access, secrets=_from_environment(environ)), environ, {})
    named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    wanted = profile or Profile(named or "default")
    if wanted.credentials.endswith((".yaml", ".yml")):
        return _from_yaml(access, _path(wanted.credentials, home))
    section = _section(wanted, environ, home)
    if not section:
        if named and profile is None:
            place = f"profile {named}"
            raise StoreProblem("denied", place, "there is no such profile", "set AWS_PROFILE")
        return _with_region(access, environ, {})
    access = _with_account(access, wanted, home)
    keys, expires = _keys(section, wanted.name)
    return _with_region(
        replace(access, secrets=keys, expires=expires), {} if profile else environ, section
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    }
    return {key: environ[name] for key, name in names.items() if environ.get(name)}


def _with_region(access: Access, environ: Mapping[str, str], section: Mapping[str, str]) -> Access:
    region = access.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    endpoint = access.endpoint or environ.get("AWS_ENDPOINT_URL_S3")
    return replace(
        access,
        region=region or section.get("region", ""),
        endpoint=endpoint or environ.get("AWS_ENDPOINT_URL") or section.get("endpoint_url", ""),
    )


def _section(profile: Profile, environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """What both files say of a profile; the one with credentials has the last word."""
    usual = profile.credentials == Profile("").credentials
    files = {
        "config": environ.get("AWS_CONFIG_FILE") if usual else None,
        "credentials": environ.get("AWS_SHARED_CREDENTIALS_FILE") if usual else None,
    }
    config = _read(_path(files["config"] or profile.config, home))
    credentials = _read(_path(files["credentials"] or profile.credentials, home))
    title = profile.name if profile.name == "default" else f"profile {profile.name}"
    return {
        **config.get(title, config.get(profile.name, {})),
        **credentials.get(profile.name, {}),
    }


def _read(path: Path | None) -> dict[str, dict[str, str]]:
    if path is None:
        return {}
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except (configparser.Error, UnicodeDecodeError):
        raise StoreProblem("denied", str(path), "the file cannot be understood") from None
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _keys(section: Mapping[str, str], name: str) -> tuple[dict[str, str], float | None]:
    if section.get("aws_access_key_id"):
        return _named(section, "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    if section.get("credential_process"):
        return _from_program(section["credential_process"], name)
    if any(word in section for word in _BEYOND_US) or section.get("source_profile"):
        return _from_boto3(name)
    return {}, None


def _named(found: Mapping[str, Any], *names: str) -> tuple[dict[str, str], float | None]:
    keys = ("access_key_id", "secret_access_key", "session_token")
    pairs = zip(keys, names, strict=True)
    return {key: str(found[name]) for key, name in pairs if found.get(name)}, None


def _from_program(command: str, name: str) -> tuple[dict[str, str], float | None]:
    place = f"credential_process of the profile {name}"
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, timeout=_PATIENCE, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        found = None
    if not isinstance(found, dict) or not found.get("AccessKeyId"):
        raise StoreProblem(
            "denied", place, "it prints no credentials", "run it by hand to see why"
        )
    keys, _ = _named(found, "AccessKeyId", "SecretAccessKey", "SessionToken")
    return keys, _time(found.get("Expiration"))


def _time(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None


def _from_boto3(name: str) -> tuple[dict[str, str], float | None]:
    place = f"profile {name}"
    try:
        import boto3
    except ImportError:
        said = "it takes on a role or signs in elsewhere, which boto3 does"
        raise StoreProblem("denied", place, said, "pip install boto3") from None
    try:
        credentials = boto3.Session(profile_name=name).get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
    except Exception as error:
        said = type(error).__name__  # its text may name tokens
        raise StoreProblem("denied", place, f"boto3 says {said}", "aws sso login?") from None
    if frozen is None:
        raise StoreProblem("denied", place, "boto3 finds no credentials in it")
    keys = {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key}
    if frozen.token:
        keys["session_token"] = frozen.token
    expires = getattr(credentials, "_expiry_time", None)
    return keys, expires.timestamp() if isinstance(expires, datetime) else None


def _from_yaml(access: Access, path: Path | None) -> Access:
    """IBM's file, as SkyPilot has it: HMAC keys among others."""
    if path is None or not path.is_file():
        return access
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        raise StoreProblem("denied", str(path), "the file cannot be understood") from None
    if not isinstance(found, dict) or not found.get("access_key_id"):
        fix = "write access_key_id and secret_access_key of an HMAC credential there"
        raise StoreProblem("denied", str(path), "it has no keys for S3", fix)
    keys, _ = _named(found, "access_key_id", "secret_access_key", "session_token")
    return replace(access, secrets=keys)


def _with_account(access: Access, profile: Profile, home: Path) -> Access:
    if not profile.account or access.account or access.endpoint:
        return access
    path = _path(profile.account, home)
    try:
        return replace(access, account=path.read_text().strip() if path else "")
    except OSError:
        return access


def _path(text: str, home: Path) -> Path | None:
    if not text:
        return None
    return home / text[2:] if text.startswith("~/") else Path(text)
