"""Fleet files: what they mean, and every way in which they can be wrong."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from moorage.errors import InvalidInput
from moorage.specs.fleet import Fleet, Health, Host, Jump
from moorage.specs.fleetfile import check_fleet, is_fleet, load_fleet
from moorage.specs.schema import schema

HEAD = "type: fleet\nname: lab\n"
FULL = """\
type: fleet
name: lab
placement: cluster
blocks: 2
env: [TOKEN, A=b]
ssh_config:
  user: ubuntu
  port: 2022
  identity_file: ~/.ssh/id
  proxy_jump: [{hostname: gw1, user: me}, {hostname: gw2, port: 2222}]
  network: 10.0.0.7/24
  host_key: accept-new
  hosts:
    - h1
    - hostname: h2
      port: 2200
      user: root
      identity_file: /keys/h2
      proxy_jump: {hostname: gw3, identity_file: ~/k}
      internal_ip: 10.0.0.2
      blocks: auto
runtime: process
engines: docker
health: {command: nvidia-smi, interval: 1m}
"""


def fleet(text: str) -> Fleet:
    return load_fleet(text, file="f.yml", environ={"TOKEN": "t0p", "HOST": "h9"}).spec


def errors(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        fleet(text)
    return [str(problem) for problem in caught.value.problems]


def test_all_fields() -> None:
    jumps = (Jump("gw1", user="me"), Jump("gw2", 2222))
    shared = {"network": "10.0.0.0/24", "host_key": "accept-new"}
    assert fleet(FULL) == Fleet(
        name="lab",
        hosts=(
            Host(
                hostname="h1",
                port=2022,
                user="ubuntu",
                identity_file="~/.ssh/id",
                jumps=jumps,
                blocks=2,
                **shared,
            ),
            Host(
                hostname="h2",
                port=2200,
                user="root",
                identity_file="/keys/h2",
                jumps=(Jump("gw3", identity_file="~/k"),),
                internal_ip="10.0.0.2",
                blocks="auto",
                **shared,
            ),
        ),
        placement="cluster",
        env={"TOKEN": "t0p", "A": "b"},
        runtime="process",
        engines=("docker",),
        health=Health("nvidia-smi", 60.0),
    )


def test_the_shortest_file() -> None:
    assert fleet(HEAD + "ssh_config: {hosts: ['${{ env.HOST }}']}") == Fleet(
        name="lab", hosts=(Host(hostname="h9"),)
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("nodes: 2\nssh_config: {hosts: [a]}", "f.yml:3:8: nodes: this version does not get "
         "machines from a cloud yet; remove it, and name your machines under ssh_config.hosts"),
        ("ssh_config:\n  hosts: []", "f.yml:4:10: ssh_config.hosts: a fleet needs at least one "
         "host; write - hostname: ..."),
        ("ssh_config:\n  user: a", "f.yml:4:3: ssh_config: hosts are missing; "
         "write hosts: with one `- name` a line"),
        ("ssh_config:\n  hosts: [a]\n  usr: b", "f.yml:5:3: ssh_config.usr: there is no field "
         "'usr'; did you mean 'user'?"),
        ("ssh_config:\n  hosts: [a]\n  ssh_key: b", "f.yml:5:12: ssh_config.ssh_key: a private "
         "key does not belong in a fleet file; keep the key in a file of its own and name that "
         "in identity_file"),
        ("ssh_config:\n  hosts: [me@a]", "f.yml:4:11: ssh_config.hosts[0]: 'me@a' is not a host "
         "name; write hostname: a, user: me"),
        ("ssh_config:\n  hosts: ['-oProxyCommand=x']", "f.yml:4:11: ssh_config.hosts[0]: "
         "'-oProxyCommand=x' is not a host name; write a name or an IP address"),
        ("ssh_config:\n  hosts:\n  - a\n  - a", "f.yml:6:5: ssh_config.hosts[1]: a is written "
         "twice; first on line 5; remove one of them"),
        ("ssh_config:\n  hosts: [{user: a}]", "f.yml:4:11: ssh_config.hosts[0]: hostname is "
         "missing; write - hostname: ..."),
        ("ssh_config:\n  hosts: [{hostname: a, internal_ip: 8.8.8.8}]", "f.yml:4:38: "
         "ssh_config.hosts[0].internal_ip: '8.8.8.8' is not a private address; leave it out"),
        ("ssh_config:\n  hosts: [a]\n  identity_file: id", "f.yml:5:18: "
         "ssh_config.identity_file: 'id' is not an absolute path; begin it with / or ~/: it is a "
         "file of the machine and account of the server"),
        ("ssh_config:\n  hosts: [a]\n  network: x", "f.yml:5:12: ssh_config.network: 'x' is not "
         "a network; write it as in 10.0.0.0/24"),
        ("ssh_config: {hosts: [a]}\nhealth: {command: a, interval: 1s}", "f.yml:4:9: health: the "
         "interval must be 5s or more"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(body: str, message: str) -> None:
    assert errors(HEAD + body) == [message]


def test_every_problem_at_once() -> None:
    assert errors("type: fleet\nnam: a\nplacement: x\nengines: [podmn]") == [
        "f.yml:1:1: the field 'name' is missing; "
        "add name: with lowercase letters, digits and dashes",
        "f.yml:1:1: the field 'ssh_config' is missing; add ssh_config: with hosts:",
        "f.yml:2:1: nam: there is no field 'nam'; did you mean 'name'?",
        "f.yml:3:12: placement: 'x' is not one of any, cluster",
        "f.yml:4:11: engines[0]: 'podmn' is not one of moorage, podman, docker, apptainer; "
        "did you mean 'podman'?",
    ]


def test_the_servers_own_machine_has_its_name_already() -> None:
    (message,) = errors("type: fleet\nname: local\nssh_config: {hosts: [a]}")
    assert "it is the server's own machine" in message


def test_a_fleet_is_told_from_other_files() -> None:
    assert is_fleet(FULL)
    assert is_fleet("{type: fleet}")
    assert not is_fleet("type: task\nfleets: [a]")
    assert not is_fleet("fleet: [")


def test_the_schema_agrees() -> None:
    validator = jsonschema.Draft202012Validator(schema("fleet"))
    validator.validate(yaml.safe_load(FULL))
    assert not validator.is_valid(yaml.safe_load(HEAD + "ssh_config: {hosts: []}"))


def test_a_spec_that_no_file_made_is_checked_alike() -> None:
    assert check_fleet(fleet(FULL)) == []
    wrong = Fleet(name="lab", hosts=(Host(hostname="-oProxyCommand=x", user="a b"),))
    assert [(problem.field, problem.message) for problem in check_fleet(wrong)] == [
        ("ssh_config.hosts[0].hostname", "'-oProxyCommand=x' is not a host name"),
        ("ssh_config.hosts[0].user", "'a b' is not a user name"),
    ]
    assert [problem.field for problem in check_fleet(Fleet(name="LAB", hosts=()))] == [
        "name",
        "ssh_config.hosts",
    ]
