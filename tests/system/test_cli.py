"""The command as a user has it: real processes, a real server, real jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import COMMAND, PATIENCE, Command

TASK = """\
type: task
name: {name}
files: [data]
commands:
- cat data/word
- exit {code}
"""
SLEEPER = "trap 'exit 9' TERM; echo begun; sleep 60 & while :; do wait; done"


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    # It waits for the node: whichever test comes first finds one.
    assert " up " in command("node", "ls").out
    yield command
    command.end()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "word").write_text("mooring\n")
    path = tmp_path / "task.yml"
    path.write_text(TASK.format(name="word", code=7))
    return path


def test_the_first_command_starts_a_server_and_says_so_in_one_line(tmp_path):
    command = Command(tmp_path / "home")
    try:
        first, second = command("ps"), command("ps")
        status = command("server", "status")
        assert first.code == second.code == status.code == 0
        [line] = [x for x in first.err.splitlines() if "started a server" in x]
        assert line.startswith("moorage: started a server for this machine on 127.0.0.1:")
        assert line.endswith("(stop it with: moorage server stop)")
        assert "started" not in second.err
        assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
        assert command("server", "stop").out.startswith("server stopped")
        assert command("server", "status").code == 5
        assert command("server", "stop").out == "no server runs\n"
    finally:
        command.end()


def test_apply_streams_the_output_and_ends_with_the_code_of_the_job(moorage, task):
    result = moorage("apply", "-f", str(task), cwd=Path("/"))
    assert (result.code, result.out) == (7, "mooring\n")
    assert "data -> data: 1 file, 8 B; 8 B to send" in result.err
    assert "failed after" in result.err
    again = moorage("apply", "-f", "-", "-y", cwd=task.parent, stdin=task.read_text())
    assert (again.code, again.out) == (7, "mooring\n")
    assert "nothing to send" in again.err


def test_run_needs_no_file(moorage):
    result = moorage("run", "-e", "WORD=it's", "--", "sh", "-c", 'echo "$WORD" "$1"', "-", "a b")
    assert (result.code, result.out) == (0, "it's a b\n")
    assert result.err == ""
    assert moorage("run", "--", "sh", "-c", "kill -9 $$").code == 137


def test_a_run_needs_a_command_or_an_image(moorage):
    result = moorage("run")
    assert (result.code, result.err) == (
        2,
        "moorage: error: --: there is no command; write it after --, or name an --image that has "
        "one\n",
    )


def test_a_detached_run_is_listed_shown_waited_for_and_deleted(moorage):
    started = moorage("run", "-d", "-n", "shy", "--", "sh", "-c", "echo out; exit 4")
    assert started.code == 0
    waited = moorage("wait", started.out.strip())
    assert waited.code == 4
    assert "run shy" in waited.out
    listed = json.loads(moorage("ps", "--json", "-a").out)
    [row] = [run for run in listed["runs"] if run["name"] == "shy"]
    assert (row["state"], row["exit_code"]) == ("failed", 4)
    assert listed["total"] == len(listed["runs"])
    page = moorage("show", "shy").out
    for part in ("state     failed", "exit code 4", "attempt 1 on", "  run ", "echo out; exit 4"):
        assert part in page
    assert json.loads(moorage("show", "shy", "--json").out)["summary"]["name"] == "shy"
    assert moorage("logs", "shy").out == "out\n"
    followed = moorage("logs", "-f", "shy")
    assert (followed.code, followed.out) == (4, "out\n")
    assert moorage("delete", "-y", "shy").code == 0
    assert moorage("show", "shy").code == 3


def test_a_run_that_has_ended_is_tried_again_with_the_files_of_then(moorage, tmp_path):
    (tmp_path / "in.txt").write_text("of then")
    file = tmp_path / "again.yml"
    file.write_text(
        "type: task\nname: again\nfiles: [in.txt]\nenv: [SECRET]\ncommands:\n"
        "- cat in.txt; echo $SECRET; exit 5\n"
    )
    first = moorage("apply", "-y", "-f", str(file), "-e", "SECRET=mine")
    assert (first.code, first.out) == (5, "of thenmine\n"), first.err
    (tmp_path / "in.txt").unlink()
    again = moorage("retry", "again")
    assert (again.code, again.out) == (5, "of thenmine\n"), again.err
    other = moorage("retry", "-d", "-n", "other", "again")
    view = json.loads(moorage("show", "other", "--json").out)
    assert view["summary"]["id"] == int(other.out)
    assert view["source"] == file.read_text()
    assert moorage("wait", "other").code == 5
    assert moorage("retry", "agian").code == 3
    assert "name" in moorage("retry", "again", "-n", "No Good").err


def test_a_run_that_goes_on_is_not_tried_again(moorage):
    number = moorage("run", "-d", "--", "sleep", "600").out.strip()
    refused = moorage("retry", number)
    assert refused.code == 2
    assert f"({number}) has not ended; moorage stop {number} ends it" in refused.err
    moorage("stop", "-y", "-x", number)


def test_of_several_runs_those_that_exist_are_deleted(moorage):
    ended = [moorage("run", "-d", "--", "true").out.strip() for _ in range(2)]
    moorage("wait", *ended)
    busy = moorage("run", "-d", "--", "sleep", "60").out.strip()
    result = moorage("delete", "-y", ended[0], "nosuch", busy, ended[1], ended[1])
    assert result.code == 3
    assert result.out.count(" deleted\n") == 2
    assert "moorage: error: there is no run 'nosuch'" in result.err
    assert f"moorage: error: run {busy} is still live" in result.err
    assert moorage("stop", "-x", "nosuch", busy).code == 3
    assert moorage("wait", busy).code == 137


def begins(moorage: Command, run: str) -> None:
    """Wait until it has said so."""
    words = [*COMMAND, "logs", "-f", run]
    with subprocess.Popen(words, env=moorage.environment, stdout=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"begun\n"
        logs.kill()


def test_a_list_says_what_queued_runs_wait_for(moorage):
    cpus = str(len(os.sched_getaffinity(0)))
    script = ["sh", "-c", "echo begun; exec sleep 600"]
    hog = moorage("run", "-d", "-n", "hog", "--cpu", cpus, "--", *script).out.strip()
    begins(moorage, hog)  # what others had has been given back
    late = moorage("run", "-d", "--cpu", cpus, "--", "true").out.strip()
    [row] = [line for line in moorage("ps").out.splitlines() if line.startswith(f"{late} ")]
    assert "queued" in row
    assert "waits for" in row
    assert "(hog uses the rest)" in row
    assert moorage("stop", "-x", hog, late).code == 0


def completed(moorage, *words: str) -> list[str]:
    variables = {
        "_MOORAGE_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["moorage", *words]),
        "COMP_CWORD": str(len(words)),
    }
    environment = {**os.environ, "MOORAGE_HOME": str(moorage.home), **variables}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_the_shell_completes_files_and_the_runs_that_a_verb_can_take(moorage):
    ended = "moorage-ended"
    assert moorage("run", "-n", ended, "--", "true").code == 0
    assert moorage("run", "-d", "-n", "moorage-busy", "--", "sleep", "60").code == 0
    assert completed(moorage, "plan", "-f", "a") == ["file,a"]
    assert completed(moorage, "stop", "moorage-") == ["plain,moorage-busy"]
    assert completed(moorage, "delete", "moorage-") == [f"plain,{ended}"]
    assert len(completed(moorage, "show", "moorage-")) == 2
    assert moorage("stop", "-x", "moorage-busy").code == 0


def test_an_unknown_run_is_not_found_with_the_nearest_name(moorage):
    assert moorage("run", "-n", "heron", "--", "true").code == 0
    for verb in ("show", "logs", "wait", "stop", "delete"):
        result = moorage(verb, "heorn")
        assert (result.code, result.out) == (3, "")
        assert result.err.startswith("moorage: error: ")
        assert result.err.endswith("did you mean heron?\n")


def test_plan_prints_every_problem_and_changes_nothing(moorage, tmp_path):
    before = moorage("ps", "--json", "-a").out
    path = tmp_path / "bad.yml"
    path.write_text(
        "type: task\ncommands: [true]\nresorces: {cpu: 1}\nmax_duration: soon\npriority: 101\n"
    )
    result = moorage("plan", "-f", str(path))
    assert result.code == 2
    lines = result.err.splitlines()
    assert [line.split(":")[3] for line in lines] == ["3", "4", "5"]
    path.write_text("type: task\ncommands: [true]\nfiles:\n- a\n- ./b:/c\n")
    result = moorage("plan", "-f", str(path), "--json")
    assert result.code == 2
    assert len(json.loads(result.out)["problems"]) == 2
    assert [line.split(": ")[2] for line in result.err.splitlines()] == [
        f"{path}:4:3",
        f"{path}:5:3",
    ]
    assert moorage("ps", "--json", "-a").out == before


def test_what_stands_against_a_run_is_said_with_its_node_or_its_line(moorage, tmp_path):
    path = tmp_path / "far.yml"
    path.write_text("type: task\ncommands: [true]\nfleets:\n- locl\n")
    said = moorage("plan", "-f", str(path)).err.splitlines()[-1]
    assert said == (
        f"moorage: error: {path}:4:1: fleets: there is no fleet locl; did you mean local? "
        "known: local (moorage fleet ls)"
    )
    node = json.loads(moorage("node", "ls", "--json").out)["nodes"][0]["name"]
    path.write_text("type: task\ncommands: [true]\nvolumes:\n- /:/all:ro\n- /none/x:/x:ro\n")
    said = moorage("apply", "-y", "-f", str(path)).err.splitlines()[-1]
    assert said.startswith(
        f"moorage: error: {path}:5:3: volumes[1]: on {node}: /none/x does not exist on this node"
    )
    said = moorage("run", "-v", "/none/x:/x:ro", "--", "true").err
    assert said.startswith(f"moorage: error: on {node}: /none/x does not exist on this node")
    for verb in ("show", "drain"):
        said = moorage("node", verb, f"{node}x").err
        assert f"there is no node {node}x; did you mean {node}? known: {node} (" in said


def test_plan_shows_the_native_file(moorage, task):
    shown = moorage("plan", "-f", str(task), "--show-spec", "-n", "other")
    assert shown.code == 0
    assert "name: other" in shown.out


def test_a_file_that_is_not_there_is_bad_input(moorage):
    result = moorage("apply", "-f", "/nowhere/task.yml")
    assert result.code == 2
    assert result.err == "moorage: error: -f /nowhere/task.yml: no such file or directory\n"


def test_no_server_at_the_configured_address_is_unreachable(tmp_path):
    command = Command(tmp_path, {"MOORAGE_URL": "http://127.0.0.1:1", "MOORAGE_TOKEN": "x"})
    result = command("ps")
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith("moorage: error: no server answers at http://127.0.0.1:1: ")
    assert not list(tmp_path.iterdir())


def test_a_wrong_token_is_forbidden(moorage, tmp_path):
    url = json.loads((moorage.home / "server.json").read_text())["url"]
    result = Command(tmp_path, {"MOORAGE_URL": url, "MOORAGE_TOKEN": "wrong"})("ps")
    assert result.code == 4


def test_a_server_that_cannot_start_names_the_setting(tmp_path):
    (tmp_path / "config.yml").write_text("upload_limit: many\n")
    result = Command(tmp_path)("ps")
    assert result.code == 2
    assert result.err == (
        f"moorage: error: {tmp_path / 'config.yml'}: upload_limit: 'many' is not a size such as "
        "512MB, 24GB or 1.5TB, or off\n"
    )


def test_a_reader_that_leaves_ends_it_silently(moorage):
    moorage("run", "--", "true")
    shell = " ".join([*COMMAND, "ps", "-a", "|", "true"])
    done = subprocess.run(
        ["sh", "-c", shell], env=moorage.environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_a_pipe_gets_plain_text_and_a_terminal_a_table_that_fits(moorage):
    moorage("run", "-n", "wide", "--", "sh", "-c", "exit 1")
    plain = moorage("ps").out
    assert "\x1b" not in plain
    [line] = [line for line in plain.splitlines() if " wide " in line]
    assert len(line) > 70
    with moorage.on_terminal("ps", columns=60) as screen:
        assert screen.end() == 0
    assert "\x1b[31mfailed\x1b[0m" in screen.text
    assert line[70:] not in screen.text
    assert "…" in screen.text


def test_rows_that_are_left_out_are_counted(moorage):
    moorage("run", "--", "true")
    moorage("run", "--", "true")
    result = moorage("ps", "-n", "1")
    assert len(result.out.splitlines()) == 2
    assert " shown\n" in result.err
    assert result.err.startswith("moorage: 1 of ")


def test_apply_asks_on_a_terminal_and_no_means_no(moorage, task):
    before = moorage("ps", "--json", "-a").out
    with moorage.on_terminal("apply", "-f", str(task)) as screen:
        screen.expect("Submit it?")
        screen.type("n\n")
        assert screen.end() == 1
    assert moorage("ps", "--json", "-a").out == before


def test_interrupted_and_detached_the_run_goes_on(moorage):
    with moorage.on_terminal("run", "-n", "left", "--", "sh", "-c", SLEEPER) as screen:
        screen.expect("begun")
        screen.interrupt()
        screen.expect("[d]etach, [s]top")
        screen.type("d\n")
        assert screen.end() == 0
    assert "moorage logs -f left" in screen.text
    assert json.loads(moorage("show", "left", "--json").out)["summary"]["state"] == "running"
    stopped = moorage("stop", "-x", "left")
    assert "left" in stopped.out
    assert moorage("wait", "left").code == 137


def test_interrupted_and_stopped_the_code_is_the_job_s(moorage):
    with moorage.on_terminal("run", "-n", "halt", "--", "sh", "-c", SLEEPER) as screen:
        screen.expect("begun")
        screen.interrupt()
        screen.expect("[d]etach, [s]top")
        screen.type("s\n")
        code = screen.end()
    summary = json.loads(moorage("show", "halt", "--json").out)["summary"]
    assert summary["state"] == "cancelled"
    assert code == (summary.get("exit_code") or 1)


def test_interrupted_and_continued_no_output_is_lost(moorage):
    script = "echo begun; read go < $0; echo ended; exit 5"
    fifo = moorage.home / "go"
    os.mkfifo(fifo)
    volume = ["-v", f"{moorage.home}:/signal"]
    with moorage.on_terminal("run", *volume, "--", "sh", "-c", script, "/signal/go") as screen:
        screen.expect("begun")
        screen.interrupt()
        screen.expect("[C]ontinue?")
        screen.type("what\n")
        screen.expect("answer d, s or c")
        screen.type("\n")
        with fifo.open("w") as go:
            go.write("go\n")
        assert screen.end() == 5
    assert screen.text.count("begun\r\n") == 1
    assert "ended" in screen.text


def test_a_second_interrupt_detaches(moorage):
    with moorage.on_terminal("run", "-n", "twice", "--", "sh", "-c", SLEEPER) as screen:
        screen.expect("begun")
        screen.interrupt()
        screen.expect("[d]etach, [s]top")
        screen.interrupt()
        assert screen.end() == 130
    assert "detached" in screen.text
    moorage("stop", "-x", "-y", "twice")


def test_interrupted_where_nobody_can_answer_it_detaches(moorage):
    process = subprocess.Popen(
        [*COMMAND, "run", "-n", "alone", "--", "sh", "-c", SLEEPER],
        env=moorage.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert "detached; alone goes on" in process.stderr.read()
    moorage("stop", "-x", "alone")


def test_ps_watches_and_follows_what_happens(moorage):
    with moorage.on_terminal("ps", "-w") as screen:
        screen.expect("Ctrl-C ends")
        moorage("run", "-n", "seen", "--", "true")
        screen.expect("seen")
        screen.interrupt()
        assert screen.end() == 0
    assert moorage("ps", "-w").code == 2


def test_events_are_listed_and_watched(moorage):
    moorage("run", "-n", "noted", "--", "true")
    kinds = [
        json.loads(x)["kind"]
        for x in moorage("events", "--run", "noted", "--json").out.splitlines()
    ]
    assert kinds[0] == "run.submitted"
    assert kinds[-1] == "run.ended"
    with moorage.on_terminal("events", "-w") as screen:
        screen.expect("watching")
        moorage("run", "-n", "later", "--", "true")
        screen.expect("later")
        screen.interrupt()
        assert screen.end() == 0


def test_the_last_events_are_asked_for(moorage):
    number = moorage("run", "-d", "--", "true").out.strip()
    moorage("wait", number)
    every = moorage("events", "--run", number, "--json").out.splitlines()
    assert moorage("events", "--run", number, "--json", "-n", "2").out.splitlines() == every[-2:]
    assert len(moorage("events", "-n", "3").out.splitlines()) == 3


def test_nodes_are_listed_and_shown(moorage):
    moorage("run", "--", "true")
    [node] = json.loads(moorage("node", "ls", "--json").out)["nodes"]
    assert node["state"] == "up"
    assert node["name"] in moorage("node", "ls").out
    assert "cpus" in moorage("node", "show", node["name"]).out
    assert moorage("node", "show", "nope").code == 3


def test_names_of_runs_are_completed(moorage):
    moorage("run", "-n", "completed", "--", "true")
    environment = {
        **moorage.environment,
        "_MOORAGE_COMPLETE": "bash_complete",
        "COMP_WORDS": "moorage show comp",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "plain,completed\n"


def test_the_client_library_does_what_the_command_does(moorage, task, monkeypatch):
    from moorage import Client
    from moorage.specs.mounts import Files
    from moorage.specs.task import Task

    monkeypatch.setenv("MOORAGE_HOME", str(moorage.home))
    monkeypatch.delenv("MOORAGE_URL", raising=False)
    with Client() as client:
        written = Task(commands=["cat w"], mounts=[Files("data/word", "w")])
        [run] = client.submit(client.upload(written, task.parent))
        assert b"".join(client.logs(run.id, follow=True)) == b"mooring\n"
        assert client.wait(run.id).summary.state == "succeeded"
        assert next(client.runs()).id == run.id
        assert client.collect().blobs == 0


def test_the_first_command_may_ask_for_nodes(tmp_path: Path) -> None:
    command = Command(tmp_path)
    try:
        assert "up" in command("node", "ls").out
    finally:
        command.end()


def test_neither_locale_nor_home_need_be_plain(tmp_path: Path) -> None:
    """Text is UTF-8 everywhere behind the command, and paths may hold anything."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = Command(tmp_path / 'an ünusual "home" $x' / ("long" * 40), plain)
    try:
        result = command("run", "--", "sh", "-c", 'cd "$MOORAGE_SCRATCH" && echo "$PWD"')
        assert result.code == 0, result.err
    finally:
        command.end()
