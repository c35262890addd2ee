from __future__ import annotations

import pytest

from moorage.specs.load import load
from moorage.specs.places import field_of, locate

FILE = """\
type: task
name: train
resources:
  gpu: H100:2
volumes:
  - /data:/data:ro
commands: [nvidia-smi]
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resources.gpu: no node has one", "train.yml:4:8: resources.gpu: no node has one"),
        ("resources.disk: too small", "train.yml:4:3: resources.disk: too small"),
        ("volumes[0].path: is bad; mend it", "train.yml:6:5: volumes[0].path: is bad; mend it"),
        ("nodes: too many", "nodes: too many"),
        ("no node is up", "no node is up"),
        ("/data: is a device", "/data: is a device"),
    ],
)
def test_what_is_said_of_a_field_is_told_with_its_line(text, shown):
    loaded = load(FILE, file="train.yml", environ={})
    assert str(locate(text, loaded.fields, "train.yml")) == shown


def test_a_name_that_an_option_gave_is_not_in_the_file():
    loaded = load(FILE, file="train.yml", environ={}, name="other")
    assert str(locate("name: is taken", loaded.fields, "train.yml")) == "name: is taken"


def test_a_complaint_may_begin_with_a_field():
    assert field_of("image: /x is gone: yes") == ("image", "/x is gone: yes")
    assert field_of("/x: is gone") == ("", "/x: is gone")
