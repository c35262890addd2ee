"""From files to specs: what each field comes to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import InvalidInput, Problem
from moorage.specs.fields.task import TASK
from moorage.specs.load import Loaded, load
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.ports import Port
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.task import Task

GB = 1024**3
_80 = [Range(80 * GB, 80 * GB)]
ENVIRON = {"HOME": "/home/ann", "TOKEN": "s3cret", "BRACES": "${{ run.id }}"}


def read(body: str, **options: Any) -> Loaded:
    text = f"type: task\n{body}"
    if "commands" not in body:
        text += "\ncommands: [echo]"
    return load(text, **({"file": "a.yml", "environ": ENVIRON} | options))


def spec(body: str, **options: Any) -> Task:
    return read(body, **options).spec


def test_the_least_file() -> None:
    loaded = load("type: task\ncommands: [echo hi]", file="a.yml", environ={})
    assert loaded.spec == Task(commands=["echo hi"])
    assert (loaded.dialect, loaded.warnings, loaded.inherited) == ("native", [], frozenset())
    assert loaded.source == "type: task\ncommands: [echo hi]"


def test_json_is_a_file_too() -> None:
    text = '{"type": "task", "commands": ["a", "b"], "priority": 7, "name": null}'
    assert load(text, file="a.json", environ={}).spec == Task(commands=["a", "b"], priority=7)


@pytest.mark.parametrize(
    ("written", "commands"),
    [("echo", ["echo"]), ("[a, 7, true]", ["a", "7", "true"]), ("|\n  a\n  b\n", ["a\nb\n"])],
)
def test_commands(written: str, commands: list[str]) -> None:
    assert spec(f"commands: {written}").commands == commands


def test_plain_fields() -> None:
    task = spec(
        "name: train-1\nshell: /bin/zsh\npython: 3.12\nworking_dir: ~/x\npriority: 100\n"
        "tags: {team: a b, empty: , n: 3}"
    )
    assert (task.name, task.shell, task.python) == ("train-1", "/bin/zsh", "3.12")
    assert (task.working_dir, task.priority) == ("~/x", 100)
    assert task.tags == {"team": "a b", "empty": "", "n": "3"}


def test_null_counts_as_not_written() -> None:
    assert spec("name:\nenv: ~\nresources: null\nretry:\nimage:\nvolumes: null") == spec("")


def test_merge_keys_and_anchors() -> None:
    task = spec(
        "resources: &r {cpu: 2, memory: 4GB}\nretry: &e {on_events: [error]}\n"
        "env: {<<: {A: 1, B: 2}, B: 3}"
    )
    assert task.env == {"A": "1", "B": "3"}
    assert spec("env: {<<: [{A: 1}, {A: 2, B: 2}]}").env == {"A": "1", "B": "2"}


class TestEnv:
    def test_list(self) -> None:
        loaded = read("env: [A=1, B=, C=x=y, TOKEN]")
        assert loaded.spec.env == {"A": "1", "B": "", "C": "x=y", "TOKEN": "s3cret"}
        assert loaded.inherited == {"TOKEN"}

    def test_map(self) -> None:
        loaded = read("env: {A: on, B: 1.10, C: '', TOKEN: , HOME: ~}")
        assert loaded.spec.env == {
            "A": "on",
            "B": "1.10",
            "C": "",
            "TOKEN": "s3cret",
            "HOME": "/home/ann",
        }
        assert loaded.inherited == {"TOKEN", "HOME"}

    def test_values_from_outside_are_plain_text(self) -> None:
        assert spec("env: [BRACES]").env == {"BRACES": "$${{ run.id }}"}

    def test_overrides_replace_and_add(self) -> None:
        options = ["A=2", "UNSET=x", "TOKEN", "NEW=${{ x }}"]
        loaded = read("env: [A=1, UNSET]", overrides=options)
        assert loaded.spec.env == {
            "A": "2",
            "UNSET": "x",
            "TOKEN": "s3cret",
            "NEW": "$${{ x }}",
        }
        assert loaded.inherited == {"TOKEN"}

    def test_entries_refer_to_earlier_ones_and_to_the_caller(self) -> None:
        task = spec("env: {A: 1, B: '${{ env.A }}2', HOME: '${{ env.HOME }}/x'}")
        assert task.env == {"A": "1", "B": "12", "HOME": "/home/ann/x"}


class TestVariables:
    def test_env_works_in_every_text(self) -> None:
        body = (
            "name: r-${{ env.N }}\nenv: {N: 7}\nfiles: ['${{ env.HOME }}/a:b${{ env.N }}']\n"
            "volumes: ['${{ env.HOME }}/v:/v']\nresources: {cpu: '${{ env.N }}'}\n"
            "priority: ${{ env.N }}\nmax_duration: ${{ env.N }}h\ntags: {n: '${{ env.N }}'}"
        )
        task = spec(body)
        assert (task.name, task.priority, task.max_duration) == ("r-7", 7, 7 * 3600)
        assert task.mounts == [Files("/home/ann/a", "b7"), HostPath("/home/ann/v", "/v")]
        assert task.resources.cpu.count == Range(7, 7)
        assert task.tags == {"n": "7"}

    def test_arguments_are_quoted(self) -> None:
        task = spec("commands: ['run ${{ run.args }} end']", args=["a b", "$x"])
        assert task.commands == ["run 'a b' '$x' end"]
        assert spec("commands: ['run ${{ run.args }}']").commands == ["run "]

    def test_what_is_shown_keeps_its_references(self) -> None:
        text = (
            "type: task\nname: n-${{ env.X }}\nenv: {A: '${{ env.X }}'}\n"
            "commands: ['a ${{ env.X }} ${{ run.args }}']\n"
        )
        shown = load(text, file="a.yml", environ={"X": "x"}, args=None, keep_env=True).spec
        assert (shown.name, shown.env) == ("n-x", {"A": "${{ env.X }}"})
        assert shown.commands == ["a ${{ env.X }} ${{ run.args }}"]

    def test_what_is_known_later_stays(self) -> None:
        task = spec(
            "commands: ['a ${{ run.id }} $${{ x }} ${{ moorage.job_id }}']\n"
            "env: {O: '/d/${{ run.name }}'}\nworking_dir: w/${{ run.user }}\n"
            "volumes: ['/d/${{ run.name }}:/o/${{ dstack.job_num }}:ro']"
        )
        assert task.commands == ["a ${{ run.id }} $${{ x }} ${{ moorage.job_id }}"]
        assert task.env == {"O": "/d/${{ run.name }}"}
        assert task.working_dir == "w/${{ run.user }}"
        volume = HostPath("/d/${{ run.name }}", "/o/${{ dstack.job_num }}", read_only=True)
        assert task.mounts == [volume]

    def test_the_escape_ends_where_nothing_comes_later(self) -> None:
        assert spec("files: ['a$${{b:c']").mounts == [Files("a${{b", "c")]


class TestMounts:
    def test_order_is_that_of_the_fields(self) -> None:
        task = spec("volumes: [/a:/b]\nrepos: [.]\nfiles: [x]\nworkdir: src")
        assert task.mounts == [
            *(Files("src", "."), Files("x", "x")),
            *(Repo(source="."), HostPath("/a", "/b")),
        ]

    @pytest.mark.parametrize(
        ("written", "mount"),
        [
            ("a/b", Files("a/b", "a/b")),
            ("./a/", Files("./a/", "a")),
            ("a:/x//y/", Files("a", "/x/y")),
            ("~/k:~/k", Files("~/k", "~/k")),
            ("/etc/app.conf", Files("/etc/app.conf", "/etc/app.conf")),
            ("a:b/../c", Files("a", "c")),
            ("{local_path: a}", Files("a", "a")),
            ("{local_path: 'a:b', path: c}", Files("a:b", "c")),
        ],
    )
    def test_files(self, written: str, mount: Files) -> None:
        written = written if written.startswith("{") else f"'{written}'"
        loaded = read(f"files: [{written}]")
        assert (loaded.spec.mounts, loaded.warnings) == ([mount], [])

    def test_files_beside_the_working_directory(self) -> None:
        loaded = read("files: [../examples]")
        assert loaded.spec.mounts == [Files("../examples", "/examples")]
        assert [str(warning) for warning in loaded.warnings] == [
            "a.yml:2:9: files[0]: this lies beside the working directory and appears at "
            "/examples; write where it shall appear, after a colon or as `path`"
        ]

    @pytest.mark.parametrize(
        ("written", "mount"),
        [
            (".", Repo(source=".")),
            ("..:~/r", Repo(source="..", target="~/r")),
            ("https://h/a/b", Repo(url="https://h/a/b")),
            ("https://h:8443/a/b.git:x", Repo(url="https://h:8443/a/b.git", target="x")),
            ("https://h", Repo(url="https://h")),
            ("ssh://git@h:22/a:/x", Repo(url="ssh://git@h:22/a", target="/x")),
            ("git@h:a/b.git", Repo(url="git@h:a/b.git")),
            ("git@h:a/b.git:x", Repo(url="git@h:a/b.git", target="x")),
            ("{local_path: a, path: b}", Repo(source="a", target="b")),
            (
                "{url: 'https://h/a', branch: b, hash: c, if_exists: skip}",
                Repo(url="https://h/a", branch="b", hash="c", if_exists="skip"),
            ),
        ],
    )
    def test_repos(self, written: str, mount: Repo) -> None:
        written = written if written.startswith("{") else f"'{written}'"
        assert spec(f"repos: [{written}]").mounts == [mount]

    @pytest.mark.parametrize(
        ("written", "mount"),
        [
            ("/a:/b", HostPath("/a", "/b")),
            ("/a/:/b/:rw", HostPath("/a", "/b")),
            ("/a:/b:ro", HostPath("/a", "/b", read_only=True)),
            ("{instance_path: /a, path: /b}", HostPath("/a", "/b")),
            (
                "{instance_path: /a, path: //b, optional: true, read_only: yes}",
                HostPath("/a", "/b", read_only=True, optional=True),
            ),
            ("{name: cache, path: /c, instance: true}", HostPath("cache", "/c")),
            ("{name: [cache], path: /c, instance: true}", HostPath("cache", "/c")),
        ],
    )
    def test_volumes(self, written: str, mount: HostPath) -> None:
        assert spec(f"volumes: [{written}]").mounts == [mount]

    def test_each_knows_where_it_was_written(self) -> None:
        loaded = read("volumes:\n- /a:/b\nfiles: [x, y]")
        assert loaded.places == (("files[0]", 4, 9), ("files[1]", 4, 12), ("volumes[0]", 3, 3))

    def test_neighbours_are_no_clash(self) -> None:
        body = (
            "volumes: [/a:/data, /b:/data2]\nfiles: [x:/data/x, y:/data/x/y]\nrepos: ['.:/data']"
        )
        assert len(spec(body).mounts) == 5


class TestResources:
    @pytest.mark.parametrize(
        ("written", "cpu"),
        [
            ("4", Cpu(Range(4, 4))),
            ("0.5", Cpu(Range(0.5, 0.5))),
            ("2..8", Cpu(Range(2, 8))),
            ("..8", Cpu(Range(None, 8))),
            ("0..8", Cpu(Range(None, 8))),
            ("arm64:2", Cpu(Range(2, 2), "arm")),
            ("x86:4..", Cpu(Range(4, None), "x86")),
            ("4..:amd64", Cpu(Range(4, None), "x86")),
            ("arm", Cpu(Range(1, None), "arm")),
            ("{arch: aarch64, count: 2..4}", Cpu(Range(2, 4), "arm")),
            ("{count: {min: 2}}", Cpu(Range(2, None))),
        ],
    )
    def test_cpu(self, written: str, cpu: Cpu) -> None:
        assert spec(f"resources: {{cpu: {written}}}").resources.cpu == cpu

    @pytest.mark.parametrize(
        ("written", "memory"),
        [
            ("24", Range(24 * GB, 24 * GB)),
            ("24GiB", Range(24 * GB, 24 * GB)),
            ("8GB..", Range(8 * GB, None)),
            ("8..16GB", Range(8 * GB, 16 * GB)),
            ("0..16GB", Range(None, 16 * GB)),
            ("{min: 8GB}", Range(8 * GB, None)),
            ("{min: 8GB, max: 9}", Range(8 * GB, 9 * GB)),
        ],
    )
    def test_memory(self, written: str, memory: Range) -> None:
        assert spec(f"resources: {{memory: {written}}}").resources.memory == memory

    @pytest.mark.parametrize(
        ("written", "gpu"),
        [
            ("2", Gpu(Range(2, 2))),
            ("A100:1", Gpu(Range(1, 1), name=["A100"])),
            ("2:80GB:A100,H100:nvidia", Gpu(Range(2, 2), "nvidia", ["A100", "H100"], *_80)),
            ("tpu:1..2", Gpu(Range(1, 2), "google")),
            ("tt:1", Gpu(Range(1, 1), "tenstorrent")),
            ("40GB..80GB:2..8", Gpu(Range(2, 8), memory=Range(40 * GB, 80 * GB))),
            ("24g:1", Gpu(Range(1, 1), memory=Range(24 * GB, 24 * GB))),
            ("{name: A100, count: 2}", Gpu(Range(2, 2), name=["A100"])),
            (
                "{vendor: amd, name: [a, b], total_memory: 80.., compute_capability: 8.6}",
                Gpu(
                    vendor="amd",
                    name=["a", "b"],
                    total_memory=Range(80 * GB, None),
                    compute_capability=Range(8.6, 8.6),
                ),
            ),
            ("0", None),
            ("{count: 0}", None),
        ],
    )
    def test_gpu(self, written: str, gpu: Gpu | None) -> None:
        loaded = read(
            f"resources: {{gpu: '{written}'}}"
            if written[0] != "{"
            else f"resources: {{gpu: {written}}}"
        )
        assert (loaded.spec.resources.gpu, loaded.warnings) == (gpu, [])

    @pytest.mark.parametrize(
        ("written", "warning"),
        [
            ("24", "this asks for 24 GPUs; for GPU memory write 24GB"),
            (
                "A100",
                "no count is given: one GPU or more, and one is reserved; write A100:1",
            ),
            ("0..", "GPUs are optional here, so none is reserved; write the count you need"),
        ],
    )
    def test_doubtful_gpus(self, written: str, warning: str) -> None:
        (found,) = read(f"resources:\n  gpu: {written}").warnings
        assert str(found) == f"a.yml:3:8: resources.gpu: {warning}"

    def test_an_open_count_that_is_written_is_no_doubt(self) -> None:
        assert read("resources: {gpu: 'A100:1..'}").warnings == []

    def test_the_rest(self) -> None:
        assert spec("resources: {shm_size: 8GB, disk: 100GB..}").resources == Resources(
            shm_size=8 * GB, disk=Range(100 * GB, None)
        )
        assert spec("resources: {disk: {size: 5}}").resources.disk == Range(5 * GB, 5 * GB)
        assert spec("resources: {disk: {min: 5}}").resources.disk == Range(5 * GB, None)


class TestPolicies:
    @pytest.mark.parametrize(
        ("written", "retry"),
        [
            ("true", Retry()),
            ("on", Retry()),
            ("false", None),
            ("{}", Retry()),
            ("{on_events: [error, error], duration: 2d}", Retry(("error",), 172_800)),
            ("{on_events: error}", Retry(("error",))),
        ],
    )
    def test_retry(self, written: str, retry: Retry | None) -> None:
        assert spec(f"retry: {written}").retry == retry

    def test_durations(self) -> None:
        task = spec("max_duration: 1h30m\nstop_duration: off")
        assert (task.max_duration, task.stop_duration) == (5400, None)
        assert spec("max_duration: off\nstop_duration: 0").stop_duration == 0
        assert spec("max_duration: false").max_duration is None

    def test_schedule(self) -> None:
        found = spec("schedule: {cron: '0 3 * * MON-FRI'}").schedule
        assert found is not None
        assert found.cron == ["0 3 * * MON-FRI"]
        two = spec("schedule: {cron: [0 3 * * *, 0 4 1 * *]}").schedule
        assert two is not None
        assert len(two.cron) == 2


class TestPython:
    def test_a_lost_zero_is_put_back(self) -> None:
        loaded = read("python: 3.1")
        assert loaded.spec.python == "3.10"
        assert str(loaded.warnings[0]) == (
            "a.yml:2:9: python: 3.1 is read as Python 3.10; write '3.10', in quotes"
        )

    def test_no_zero_is_lost(self) -> None:
        loaded = read("python: 3.10")
        assert (loaded.spec.python, loaded.warnings) == ("3.10", [])


class TestDialect:
    @pytest.mark.parametrize("file", ["a.dstack.yml", ".dstack.yml", "x/a.dstack.yaml"])
    def test_by_the_name_of_the_file(self, file: str) -> None:
        loaded = read("", file=file)
        assert (loaded.dialect, loaded.spec.compat) == ("dstack", ["dstack"])

    @pytest.mark.parametrize(
        "body",
        [
            "commands: ['echo ${{ dstack.run_name }}']",
            "commands: [a, 'echo $DSTACK_RUN_NAME']",
            "commands: echo $DSTACK_RUN_NAME",
            "env: {A: '$DSTACK_NODE_RANK'}",
            "env: {DSTACK_X: 1}",
        ],
    )
    def test_by_what_it_expects(self, body: str) -> None:
        loaded = read(body)
        assert (loaded.dialect, loaded.spec.compat) == ("dstack", ["dstack"])

    def test_as_written(self) -> None:
        assert read("compat: dstack").spec.compat == ["dstack"]
        assert read("compat: [dstack, dstack]").dialect == "native"
        assert read("compat: []", file="a.dstack.yml").spec.compat == []
        assert read("compat: []\ncommands: [echo $DSTACK_X]").dialect == "native"


def test_the_name_of_the_command_line_wins() -> None:
    assert spec("name: aa", name="bb").name == "bb"


def test_dstack_fields_that_change_nothing_are_accepted() -> None:
    body = (
        "nodes: 1\nprivileged: false\ndocker: false\nnvcc: false\ndstack: no\nfleets: []\n"
        "backends: []\nregions: []\nspot_policy: auto\ncreation_policy: reuse\nmax_price: 1.5\n"
        "idle_duration: -1\nstartup_order: any\nstop_criteria: all-done\nports: []\n"
        "home_dir: /root\nsingle_branch: true\nsetup: []\ngroups: []\nregistry_auth: null\n"
        "instances: []\nbackend_options: []\nutilization_policy: {}\nimage: null"
    )
    assert spec(body.replace("dstack: no", "dstack: false")) == spec("")


def test_ports_say_where_they_are_on_the_users_machine() -> None:
    assert spec("ports: 8080").ports == [Port(8080, 8080)]
    assert spec("ports: [8080, '80:8081', '*:8082']").ports == [
        Port(8080, 8080),
        Port(8081, 80),
        Port(8082, None),
    ]


KEYS = ["type", "task", "commands", "env", "volumes", "files", "repos", "resources", "gpu", "cpu"]
SIGNS = [*"\n\t -:[]{},&*!|>'\"#%@`~$"]
SCRAPS = ["\n  ", "\n- ", ": ", "<<", "${{ env.A }}", "${{", "..", "1"]
TEXTS = st.lists(st.sampled_from(KEYS + SIGNS + SCRAPS) | st.text(max_size=4), max_size=40)


def problems_of(text: str) -> list[Problem]:
    try:
        load(text, file="a.yml", environ={"A": "x"})
    except InvalidInput as error:
        return error.problems
    return []


@given(TEXTS.map("".join))
def test_no_text_raises_anything_else(text: str) -> None:
    assert problems_of(text)
    problems_of(f"type: task\ncommands: [a]\n{text}")


INNER_KEYS = st.sampled_from([*KEYS, "path", "name", "min", "count"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER_KEYS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([row.name for row in TASK])


@given(st.dictionaries(FIELDS, VALUES, max_size=4))
def test_every_problem_has_a_place(fields: dict[str, Any]) -> None:
    text = yaml.safe_dump({"type": "task", "commands": ["a"]} | fields)
    assert all(problem.line and problem.column for problem in problems_of(text))
