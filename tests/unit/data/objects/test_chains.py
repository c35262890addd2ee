from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from moorage.data.objects import chains
from moorage.data.objects.errors import StoreProblem
from moorage.specs.stores.record import Access

S3 = Access("s3")


@pytest.fixture(autouse=True)
def _no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may themselves run on an instance of some cloud."""
    monkeypatch.setattr(chains, "_VENDORS", str(tmp_path / "no-vendor"))


def account(home: Path, **files: str) -> dict[str, str]:
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {"HOME": str(home), "PATH": ""}


KEYS = "aws_access_key_id = AK\naws_secret_access_key = SK\n"
FOUND = {"access_key_id": "AK", "secret_access_key": "SK"}


def test_what_was_declared_stays() -> None:
    declared = Access("s3", secrets={"access_key_id": "mine"})
    assert chains.completed(declared, {"AWS_ACCESS_KEY_ID": "other"}) is declared
    anonymous = Access("s3", anonymous=True)
    assert chains.completed(anonymous, {"AWS_ACCESS_KEY_ID": "other"}) is anonymous


def test_the_environment_comes_first(tmp_path: Path) -> None:
    environ = account(tmp_path, **{".aws/credentials": f"[default]\n{KEYS}"})
    environ |= {
        "AWS_ACCESS_KEY_ID": "EK", "AWS_SECRET_ACCESS_KEY": "ES", "AWS_SESSION_TOKEN": "ET",
        "AWS_REGION": "eu-west-1",
    }  # fmt: skip
    found = chains.completed(S3, environ)
    assert found.secrets == {
        "access_key_id": "EK", "secret_access_key": "ES", "session_token": "ET",
    }  # fmt: skip
    assert found.region == "eu-west-1"


def test_profiles(tmp_path: Path) -> None:
    environ = account(
        tmp_path,
        **{
            ".aws/credentials": f"[default]\n{KEYS}[other]\n{KEYS.replace('AK', 'OK')}",
            ".aws/config": "[default]\nregion = eu-1\n"
            "[profile other]\nregion = us-9\nendpoint_url = https://s3.example\n",
        },
    )
    found = chains.completed(S3, environ)
    assert (found.secrets, found.region) == (FOUND, "eu-1")
    other = chains.completed(S3, {**environ, "AWS_PROFILE": "other"})
    assert (other.secrets["access_key_id"], other.region) == ("OK", "us-9")
    assert other.endpoint == "https://s3.example"
    with pytest.raises(StoreProblem, match="profile gone: there is no such profile"):
        chains.completed(S3, {**environ, "AWS_PROFILE": "gone"})
    moved = account(tmp_path / "elsewhere") | {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws/credentials")
    }
    assert chains.completed(S3, moved).secrets == FOUND


def test_a_program_that_prints_credentials(tmp_path: Path) -> None:
    printed = {
        "Version": 1, "AccessKeyId": "AK", "SecretAccessKey": "SK", "SessionToken": "T",
        "Expiration": "2030-01-01T00:00:00+00:00",
    }  # fmt: skip
    (tmp_path / "out.json").write_text(json.dumps(printed))
    program = f"{sys.executable} -c {shlex.quote('print(open(0).read())')}"
    script = tmp_path / "give"
    script.write_text(f"#!/bin/sh\nexec {program} < {tmp_path}/out.json\n")
    script.chmod(0o755)
    environ = account(
        tmp_path, **{".aws/config": f"[default]\ncredential_process = {script}\nregion = r\n"}
    )
    found = chains.completed(S3, environ)
    assert found.secrets == {**FOUND, "session_token": "T"}
    assert found.expires == 1893456000.0
    script.write_text("#!/bin/sh\necho it broke with secret SK >&2\nexit 1\n")
    with pytest.raises(StoreProblem, match="it prints no credentials") as caught:
        chains.completed(S3, environ)
    assert "SK" not in str(caught.value)


def test_what_only_boto3_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = account(tmp_path, **{".aws/config": "[default]\nrole_arn = arn:aws:iam::1:role/x\n"})
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StoreProblem, match="pip install boto3"):
        chains.completed(S3, environ)


def test_a_file_that_is_broken_is_named_without_its_content(tmp_path: Path) -> None:
    environ = account(tmp_path, **{".aws/credentials": "aws_secret_access_key = SK\n"})
    with pytest.raises(StoreProblem, match="cannot be understood") as caught:
        chains.completed(S3, environ)
    assert "SK" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "files", "account_id"),
    [
        ("r2", {".cloudflare/r2.credentials": f"[r2]\n{KEYS}",
                ".cloudflare/accountid": "abc123\n"}, "abc123"),
        ("nebius", {".aws/credentials": f"[nebius]\n{KEYS}"}, ""),
        ("coreweave", {".coreweave/cw.credentials": f"[cw]\n{KEYS}"}, ""),
        ("vastdata", {".vastdata/vastdata.credentials": f"[vastdata]\n{KEYS}"}, ""),
        ("ibm", {".ibm/credentials.yaml": "iam_api_key: x\naccess_key_id: AK\n"
                 "secret_access_key: SK\n"}, ""),
    ],
)  # fmt: skip
def test_files_that_skypilot_documents(
    tmp_path: Path, kind: str, files: dict[str, str], account_id: str
) -> None:
    environ = account(tmp_path, **files)
    # Keys of Amazon in the environment are another store's.
    found = chains.completed(Access(kind), {**environ, "AWS_ACCESS_KEY_ID": "EK"})
    assert found.secrets == FOUND
    assert found.account == account_id


def test_nothing_found_is_anonymous_and_says_where_one_looked(tmp_path: Path) -> None:
    for kind in ("s3", "gcs", "azure", "r2"):
        found = chains.completed(Access(kind), account(tmp_path))
        assert found.anonymous
    assert chains.missing(S3).startswith("no credentials were found in AWS_ACCESS_KEY_ID")


def test_a_machine_with_a_role_is_left_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = tmp_path / "vendor"
    vendor.write_text("Amazon EC2\n")
    monkeypatch.setattr(chains, "_VENDORS", str(vendor))
    environ = account(tmp_path)
    assert not chains.completed(S3, environ).anonymous
    assert chains.completed(Access("gcs"), environ).anonymous
    assert chains.completed(S3, {**environ, "AWS_EC2_METADATA_DISABLED": "true"}).anonymous


def test_a_service_account_of_google(tmp_path: Path) -> None:
    key = json.dumps({"type": "service_account", "private_key": "secret"})
    environ = account(tmp_path, **{".config/gcloud/application_default_credentials.json": key})
    assert chains.completed(Access("gcs"), environ).secrets == {"service_account_key": key}
    with pytest.raises(StoreProblem, match="no such file"):
        chains.completed(Access("gcs"), {"GOOGLE_APPLICATION_CREDENTIALS": "/none", "HOME": "/"})


@pytest.fixture
def tokens() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = b"refresh_token=good" in body
            self.send_response(200 if good else 400)
            self.end_headers()
            self.wfile.write(b'{"access_token": "T", "expires_in": 3599}' if good else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()
        thread.join()


def test_a_user_who_logged_in_at_google(tmp_path: Path, tokens: str) -> None:
    login = {"type": "authorized_user", "refresh_token": "good", "token_uri": tokens}
    path = tmp_path / "adc.json"
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "HOME": str(tmp_path)}
    path.write_text(json.dumps(login))
    found = chains.completed(Access("gcs"), environ)
    assert found.secrets == {"token": "T"}
    assert found.expires is not None
    path.write_text(json.dumps({**login, "refresh_token": "bad-one"}))
    with pytest.raises(StoreProblem, match="gives no token for this login") as caught:
        chains.completed(Access("gcs"), environ)
    assert "bad-one" not in str(caught.value)
    path.write_text(json.dumps({**login, "token_uri": "http://evil.example/"}))
    with pytest.raises(StoreProblem, match="no https address"):
        chains.completed(Access("gcs"), environ)


@pytest.mark.parametrize(
    ("environ", "secrets"),
    [
        ({"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_KEY": "K"}, {"account_key": "K"}),
        ({"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_SAS_TOKEN": "S"}, {"sas_token": "S"}),
        ({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acc;AccountKey=a+b==;X=1"},
         {"account_key": "a+b=="}),
    ],
)  # fmt: skip
def test_azure(tmp_path: Path, environ: dict[str, str], secrets: dict[str, str]) -> None:
    found = chains.completed(Access("azure"), account(tmp_path) | environ)
    assert (found.account, found.secrets) == ("acc", secrets)
    other = chains.completed(Access("azure", account="other"), account(tmp_path) | environ)
    assert other.secrets == {}


def test_the_login_of_azures_command(tmp_path: Path) -> None:
    environ = account(tmp_path, **{".azure/azureProfile.json": "{}"})
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text('#!/bin/sh\necho \'{"accessToken": "T"}\'\n')
    az.chmod(0o755)
    assert subprocess.run([az], capture_output=True, check=True).stdout
    found = chains.completed(Access("azure", account="a"), environ | {"PATH": str(az.parent)})
    assert found.secrets == {"token": "T"}


def test_hugging_face(tmp_path: Path) -> None:
    environ = account(tmp_path, **{".cache/huggingface/token": "hf_T\n"})
    assert chains.completed(Access("hf"), environ).secrets == {"token": "hf_T"}
    assert chains.completed(Access("hf"), environ | {"HF_TOKEN": "x"}).secrets == {"token": "x"}
    mirror = chains.completed(Access("hf"), environ | {"HF_ENDPOINT": "https://hub.example/"})
    assert mirror.endpoint == "https://hub.example"
    elsewhere = account(tmp_path, kept="hf_E\n") | {"HF_TOKEN_PATH": str(tmp_path / "kept")}
    assert chains.completed(Access("hf"), elsewhere).secrets == {"token": "hf_E"}
