"""Every kind of store: its words, addresses both ways, names, and what engines are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.specs.stores.addresses import BadAddress, has_secret
from moorage.specs.stores.record import Access, Address
from moorage.specs.stores.registry import KINDS, is_store_name, kind, locate, of_uri

KEYS = {"access_key_id": "AKID", "secret_access_key": "SECRET"}
RCLONE_KEYS = {**KEYS, "env_auth": "false", "no_check_bucket": "true", "type": "s3"}


def test_words_and_schemes_belong_to_one_kind_each() -> None:
    words = [word for one in KINDS for word in (one.name, *one.aliases)]
    schemes = [scheme for one in KINDS for scheme in one.schemes]
    assert len(words) == len(set(words))
    assert len(schemes) == len(set(schemes))
    names = " ".join(one.name for one in KINDS)
    assert names == "s3 gcs azure r2 ibm oci nebius coreweave vastdata hf file moorage"


@pytest.mark.parametrize(
    ("word", "name"), [("S3", "s3"), ("gs", "gcs"), ("Azure", "azure"), ("CW", "coreweave")]
)
def test_a_kind_by_its_words(word: str, name: str) -> None:
    found = kind(word)
    assert found is not None
    assert found.name == name


def test_a_word_that_is_no_kind() -> None:
    assert kind("minio") is None


@pytest.mark.parametrize(
    ("word", "good"),
    [
        *[(word, True) for word in ("minio", "lab-2")],
        *[(word, False) for word in ("s3", "gs", "http", "Minio", "a_b", "", "-a", "volume")],
    ],
)
def test_names_of_declared_stores(word: str, good: bool) -> None:
    assert is_store_name(word) is good


ADDRESSES = [
    ("s3://bucket", "s3", Address("bucket")),
    ("s3://bucket/a b/c.txt", "s3", Address("bucket", "a b/c.txt")),
    ("gs://bucket/a", "gcs", Address("bucket", "a")),
    ("az://container/a", "azure", Address("container", "a")),
    (
        "https://account.blob.core.windows.net/container/a/b",
        "azure",
        Address("container", "a/b", account="account"),
    ),
    ("r2://bucket/a", "r2", Address("bucket", "a")),
    ("cos://us-east/bucket/a", "ibm", Address("bucket", "a", region="us-east")),
    ("cos://eu-xyz/bucket", "ibm", Address("bucket", region="eu-xyz")),
    ("oci://bucket/a", "oci", Address("bucket", "a")),
    ("oci://bucket@namespace/a", "oci", Address("bucket", "a", account="namespace")),
    ("nebius://bucket/a", "nebius", Address("bucket", "a")),
    ("cw://bucket/a", "coreweave", Address("bucket", "a")),
    ("vastdata://bucket/a", "vastdata", Address("bucket", "a")),
    ("hf://ns/model", "hf", Address("ns/model")),
    ("hf://ns/model@main/a/b", "hf", Address("ns/model@main", "a/b")),
    ("hf://datasets/ns/set/a", "hf", Address("datasets/ns/set", "a")),
    ("hf://buckets/ns/b/a", "hf", Address("buckets/ns/b", "a")),
    ("file:///data/set/a", "file", Address("data", "set/a")),
    ("moorage://bucket/a", "moorage", Address("bucket", "a")),
]


@pytest.mark.parametrize(("text", "name", "address"), ADDRESSES)
def test_addresses_both_ways(text: str, name: str, address: Address) -> None:
    assert locate(text) == (name, address)
    found = of_uri(text)
    assert found is not None
    assert found.write(address) == text


@pytest.mark.parametrize("text", ["s3://bucket/a/", "S3://bucket/a"])
def test_other_spellings(text: str) -> None:
    assert locate(text) == ("s3", Address("bucket", "a"))


def test_a_declared_store() -> None:
    assert of_uri("minio://bucket/a") is None
    assert locate("minio://bucket/a") == ("minio", Address("bucket", "a"))


BAD = [
    ("s3://", "the name of a bucket is missing; write it after ://"),
    ("s3:///a", "the name of a bucket is missing; write it after ://"),
    ("s3://b/a//b", "the path has an empty part, '.' or '..'; write it without these"),
    ("s3://b/../c", "the path has an empty part, '.' or '..'; write it without these"),
    ("s3://b/a\nb", "the URI contains a control character"),
    (f"s3://b/{'x' * 3000}", "the URI is longer than 2048 characters"),
    ("http://h/b", "this is not the address of a store; write it as in s3://bucket/path"),
    ("https://h/b", "this is not the address of a store; write it as in s3://bucket/path"),
    ("bucket/a", "this is not the address of a store; write it as in s3://bucket/path"),
    (
        "https://a_b.blob.core.windows.net/c",
        "the storage account must have 3 to 24 letters and digits; "
        "write https://ACCOUNT.blob.core.windows.net/CONTAINER",
    ),
    (
        "https://acct.blob.core.windows.net",
        "the container is missing; write https://acct.blob.core.windows.net/CONTAINER",
    ),
    (
        "cos://bucket",
        "the region of the bucket is missing; write it as in cos://us-east/bucket",
    ),
    (
        "cos://us-east",
        "the bucket after the region is missing; write it as in cos://us-east/bucket",
    ),
    (
        "cos://us-esat/b",
        "'us-esat' is not a region of IBM's store; did you mean 'us-east'?; "
        "write it as in cos://us-east/bucket",
    ),
    (
        "cos://<region-of-bucket>/b",
        "'<region-of-bucket>' is not a region of IBM's store; write it as in cos://us-east/bucket",
    ),
    (
        "hf://datasets/x",
        "this does not name a repository of Hugging Face; "
        "write hf://NAMESPACE/NAME, or hf://datasets/NAMESPACE/NAME",
    ),
    ("file://host/a", "a host is named where none can be; write file:///path, three slashes"),
    ("file:///", "this is the root directory; name a directory in it"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(BadAddress) as caught:
        locate(text)
    assert str(caught.value) == message


SECRET = [
    "s3://AKID:hunter2@bucket/a",
    "minio://user:hunter2@bucket",
    "oci://AKID:hunter2@bucket",
    "https://u:hunter2@acct.blob.core.windows.net/c",
    "https://acct.blob.core.windows.net/c?sv=2020&sig=hunter2",
    "https://acct.blob.core.windows.net/c?sig=hunter2",
    "s3://b/a?X-Amz-Signature=hunter2",
    "file://u:hunter2@h/a",
]


@pytest.mark.parametrize("text", SECRET)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadAddress) as caught:
        locate(text)
    assert caught.value.reason == (
        "the URI contains credentials, which would be stored with the run"
    )
    assert "hunter2" not in str(caught.value)


def test_what_looks_like_credentials_and_is_none() -> None:
    assert not has_secret("hf://ns/name@main/a")
    assert not has_secret("s3://b/mail@host/sig=1")


AMAZON = [
    ("my-bucket.1", ""),
    ("b1", "it must have 3 to 63 characters"),
    ("a" * 64, "it must have 3 to 63 characters"),
    ("My-bucket", "use lowercase letters, digits, . and -, with a letter or digit at both ends"),
    ("-bucket", "use lowercase letters, digits, . and -, with a letter or digit at both ends"),
    ("a..b", "two dots may not follow each other"),
    ("1.2.3.4", "it may not look like an IP address"),
    ("xn--abc", "it may not begin with xn--"),
    ("abc-s3alias", "it may not end with -s3alias"),
    ("abc--ol-s3", "it may not end with --ol-s3"),
]
NAMES = [
    *[(name, text, why) for name in ("s3", "r2", "nebius", "moorage") for text, why in AMAZON],
    *[("vastdata", text, why) for text, why in AMAZON],
    ("coreweave", "bucket", ""),
    ("coreweave", "a.bucket", "it may not have dots"),
    ("coreweave", "b1", "it must have 3 to 63 characters"),
    ("gcs", "my_bucket.example", ""),
    ("gcs", ".".join(["a" * 60] * 3), ""),
    ("gcs", "a" * 64, "it must have 3 to 63 characters, or up to 222 with dots"),
    ("gcs", f"{'a' * 64}.b", "each part between dots must have at most 63 characters"),
    ("gcs", "a.-b", "next to a dot there may be no other dot and no dash"),
    ("gcs", "a-.b", "next to a dot there may be no other dot and no dash"),
    ("gcs", "a..b", "next to a dot there may be no other dot and no dash"),
    ("gcs", "10.0.0.1", "it may not look like an IP address"),
    ("gcs", "goog-x", "it may not begin with goog or resemble google"),
    ("gcs", "my-g00gle", "it may not begin with goog or resemble google"),
    (
        "gcs",
        "A-b",
        "use lowercase letters, digits, . _ and -, with a letter or digit at both ends",
    ),
    ("azure", "my-container", ""),
    ("azure", "ab", "it must have 3 to 63 characters"),
    (
        "azure",
        "a.b",
        "use lowercase letters, digits and -, with a letter or digit at both ends",
    ),
    ("azure", "a--b", "two dashes may not follow each other"),
    ("ibm", "bucket-name", ""),
    ("ibm", "ab", "it must have 3 to 63 characters"),
    ("ibm", "Abc", AMAZON[3][1]),
    ("ibm", "a--b", "two dots or dashes may not follow each other"),
    ("ibm", "a.-b", "two dots or dashes may not follow each other"),
    ("ibm", "1.2.3.4", "it may not look like an IP address"),
    ("oci", "My_Bucket.1", ""),
    ("oci", "a" * 257, "it must have 1 to 256 characters"),
    ("oci", ".x", "use letters, digits, . _ and -, with a letter or digit first"),
    ("hf", "ns/name", ""),
    ("hf", "datasets/ns/name@main", ""),
    ("hf", "name", "it must be a namespace and a name, with one slash between"),
    (
        "hf",
        "ns/-x",
        "use letters, digits, . _ and -, with a letter or digit first, at most 96 in a part",
    ),
    ("file", "data", ""),
    ("file", "..", "it must be the name of a directory"),
    ("file", "é" * 128, "it must have at most 255 bytes"),
]


@pytest.mark.parametrize(("name", "text", "why"), NAMES)
def test_names_of_buckets(name: str, text: str, why: str) -> None:
    found = kind(name)
    assert found is not None
    assert found.check_name(text) == why


ACCESS = {
    "s3": Access("s3", region="eu-west-1", secrets=KEYS),
    "minio": Access("s3", "http://h:9000", path_style=True, secrets=KEYS),
    "gcs": Access("gcs", secrets={"service_account_key": "{}"}),
    "azure": Access("azure", account="acct", secrets={"account_key": "SECRET"}),
    "r2": Access("r2", account="0ab", secrets=KEYS),
    "ibm": Access("ibm", region="us-east", secrets=KEYS),
    "oci": Access("oci", region="eu-frankfurt-1", account="ns", secrets=KEYS),
    "nebius": Access("nebius", secrets=KEYS),
    "coreweave": Access("coreweave", secrets=KEYS),
    "vastdata": Access("vastdata", "https://vast.lab", secrets=KEYS),
    "moorage": Access("moorage", "http://127.0.0.1:1", secrets=KEYS),
    "file": Access("file", "/srv/buckets"),
}
AZURE = {"type": "azureblob", "account": "acct", "no_check_container": "true"}
RCLONE = {
    "s3": RCLONE_KEYS | {"provider": "AWS", "region": "eu-west-1"},
    "minio": RCLONE_KEYS
    | {"provider": "Other", "endpoint": "http://h:9000", "force_path_style": "true"},
    "gcs": {
        "type": "google cloud storage",
        "service_account_credentials": "{}",
        "bucket_policy_only": "true",
        "no_check_bucket": "true",
    },
    "azure": AZURE | {"key": "SECRET"},
    "r2": RCLONE_KEYS
    | {
        "provider": "Cloudflare",
        "region": "auto",
        "endpoint": "https://0ab.r2.cloudflarestorage.com",
    },
    "ibm": RCLONE_KEYS
    | {
        "provider": "IBMCOS",
        "region": "us-east",
        "endpoint": "https://s3.us-east.cloud-object-storage.appdomain.cloud",
    },
    "oci": RCLONE_KEYS
    | {
        "provider": "Other",
        "region": "eu-frankfurt-1",
        "endpoint": "https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com",
        "force_path_style": "true",
    },
    "nebius": RCLONE_KEYS
    | {
        "provider": "Other",
        "region": "eu-north1",
        "endpoint": "https://storage.eu-north1.nebius.cloud",
    },
    "coreweave": RCLONE_KEYS
    | {"provider": "Other", "endpoint": "https://cwobject.com", "force_path_style": "false"},
    "vastdata": RCLONE_KEYS
    | {"provider": "Other", "endpoint": "https://vast.lab", "force_path_style": "true"},
    "moorage": RCLONE_KEYS
    | {"provider": "SeaweedFS", "endpoint": "http://127.0.0.1:1", "force_path_style": "true"},
    "file": {"type": "alias", "remote": "/srv/buckets"},
}
BY_PATH = {"bucket": "buck", **KEYS, "virtual_hosted_style_request": "false"}
OBSTORE = {
    "s3": (
        "s3",
        BY_PATH | {"region": "eu-west-1", "virtual_hosted_style_request": "true"},
    ),
    "minio": ("s3", BY_PATH | {"endpoint": "http://h:9000"}),
    "gcs": ("gcs", {"bucket": "buck", "service_account_key": "{}"}),
    "azure": (
        "azure",
        {"container_name": "buck", "account_name": "acct", "account_key": "SECRET"},
    ),
    "r2": (
        "s3",
        BY_PATH | {"region": "auto", "endpoint": "https://0ab.r2.cloudflarestorage.com"},
    ),
    "ibm": (
        "s3",
        BY_PATH
        | {
            "region": "us-east",
            "endpoint": "https://s3.us-east.cloud-object-storage.appdomain.cloud",
        },
    ),
    "oci": (
        "s3",
        BY_PATH
        | {
            "region": "eu-frankfurt-1",
            "endpoint": "https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com",
        },
    ),
    "nebius": (
        "s3",
        BY_PATH | {"region": "eu-north1", "endpoint": "https://storage.eu-north1.nebius.cloud"},
    ),
    "coreweave": (
        "s3",
        BY_PATH
        | {"virtual_hosted_style_request": "true", "endpoint": "https://buck.cwobject.com"},
    ),
    "vastdata": ("s3", BY_PATH | {"endpoint": "https://vast.lab"}),
    "moorage": ("s3", BY_PATH | {"endpoint": "http://127.0.0.1:1"}),
    "file": ("local", {"prefix": "/srv/buckets/buck"}),
}


@pytest.mark.parametrize("name", RCLONE)
def test_what_rclone_is_told(name: str) -> None:
    access = ACCESS[name]
    found = kind(access.kind)
    assert found is not None
    assert found.rclone(access) == RCLONE[name]


@pytest.mark.parametrize("name", OBSTORE)
def test_what_obstore_is_told(name: str) -> None:
    access = ACCESS[name]
    found = kind(access.kind)
    assert found is not None
    assert found.obstore(access, "buck") == OBSTORE[name]


def test_every_kind_is_told_of() -> None:
    assert {access.kind for access in ACCESS.values()} == {one.name for one in KINDS} - {"hf"}


@pytest.mark.parametrize("name", ["s3", "gcs", "azure"])
def test_without_secrets_the_engines_look_for_their_own(name: str) -> None:
    found = kind(name)
    assert found is not None
    assert found.rclone(Access(name))["env_auth"] == "true"
    assert "skip_signature" not in found.obstore(Access(name), "buck")[1]


@pytest.mark.parametrize("name", ["s3", "gcs", "azure"])
def test_public_buckets_are_asked_without_a_signature(name: str) -> None:
    found = kind(name)
    assert found is not None
    assert found.rclone(Access(name, anonymous=True)).get("env_auth", "false") == "false"
    assert found.obstore(Access(name, anonymous=True), "buck")[1]["skip_signature"] == "true"


def test_a_shared_access_signature() -> None:
    found = kind("azure")
    assert found is not None
    access = Access("azure", account="acct", secrets={"sas_token": "?sv=1&sig=x"})
    assert found.rclone(access)["sas_url"] == "https://acct.blob.core.windows.net/?sv=1&sig=x"
    assert found.obstore(access, "buck")[1]["sas_key"] == "?sv=1&sig=x"


def test_googles_service_somewhere_else() -> None:
    found = kind("gcs")
    assert found is not None
    access = Access("gcs", "http://127.0.0.1:1/", anonymous=True)
    assert found.rclone(access)["endpoint"] == "http://127.0.0.1:1/storage/v1/"
    assert found.obstore(access, "buck")[1]["base_url"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("name", ["r2", "ibm", "oci", "vastdata"])
def test_kinds_without_a_place_of_their_own_ask_for_it(name: str) -> None:
    found = kind(name)
    assert found is not None
    message = (
        "nothing says where this store is; "
        f"declare the store: moorage store add NAME --type {name} --endpoint URL"
    )
    for ask in (lambda: found.rclone(Access(name)), lambda: found.obstore(Access(name), "buck")):
        with pytest.raises(ValueError, match="nothing says") as caught:
            ask()
        assert str(caught.value) == message


def test_dots_are_no_part_of_a_host_name() -> None:
    found = kind("s3")
    assert found is not None
    config = found.obstore(Access("s3"), "a.bucket")[1]
    assert config["virtual_hosted_style_request"] == "false"


@pytest.mark.parametrize(
    ("endpoint", "by_path"),
    [
        ("http://127.0.0.1:9000", True),
        ("http://[::1]:9000", True),
        ("http://minio:9000", True),
        ("https://minio.lab:9000", False),
        ("", False),
    ],
)
def test_a_bucket_is_no_part_of_an_address(endpoint: str, by_path: bool) -> None:
    found = kind("s3")
    assert found is not None
    access = Access("s3", endpoint, secrets=KEYS)
    assert (
        found.obstore(access, "b-1")[1]["virtual_hosted_style_request"] == str(not by_path).lower()
    )
    if endpoint:
        assert found.rclone(access)["force_path_style"] == str(by_path).lower()


def test_hugging_face_is_read_over_http() -> None:
    found = kind("hf")
    assert found is not None
    base = "https://huggingface.co"
    access = Access("hf")
    assert found.obstore(access, "ns/m") == (
        "http",
        {"page": f"{base}/ns/m", "api": f"{base}/api/models/ns/m", "revision": "main"},
    )
    assert found.obstore(access, "datasets/ns/d@refs%2Fpr%2F1") == (
        "http",
        {
            "page": f"{base}/datasets/ns/d",
            "api": f"{base}/api/datasets/ns/d",
            "revision": "refs%2Fpr%2F1",
        },
    )
    with pytest.raises(ValueError, match="buckets speak S3"):
        found.obstore(access, "buckets/ns/b")
    with pytest.raises(ValueError, match="no backend"):
        found.rclone(access)


def test_secrets_are_not_shown() -> None:
    assert "SECRET" not in repr(ACCESS["s3"])


PATH = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1),
    max_size=4,
).map("/".join)


@given(st.sampled_from(["s3", "gs", "r2", "cw", "minio", "moorage"]), PATH)
def test_any_path(scheme: str, path: str) -> None:
    text = f"{scheme}://bucket/{path}" if path else f"{scheme}://bucket"
    try:
        name, address = locate(text)
    except BadAddress:
        assert has_secret(text) or {".", ".."} & set(path.split("/")) or len(text) > 2048
        return
    assert address == Address("bucket", path)
    found = kind(name)
    assert found is None or found.write(address) == text
