"""Snakemake and its jobs as forks of a process that has imported what they import: most of the time of a small job.

lmshape itself is imported anew by each of them, from where its environment says.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

HERE = Path(__file__)
CLIENT = [sys.executable, "-I", "-S", str(HERE)]
ADDRESS = "WARM_PYTHON"  # the variable that holds the socket of the process that is forked


@cache
def warm_variables() -> dict[str, str]:
    """Start the process that is forked, which ends with this one; return how a shell asks it for forks."""
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix="warm-python-")
    address = os.path.join(folder.name, "socket")
    process = subprocess.Popen(
        [sys.executable, HERE, "--serve", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(folder.cleanup)
    atexit.register(process.communicate)
    assert process.stdout.readline() == b"ready\n"
    return {
        ADDRESS: address,
        "WARM_PYTHON_CLIENT": " ".join(CLIENT),
        "BASH_ENV": str(HERE.with_suffix(".sh")),
    }


def run_python(
    *arguments: str, cwd: Path, env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run `python -m …` as a fork, and so every `python -m …` of its jobs; output and errors together."""
    return subprocess.run(
        [*CLIENT, *arguments],
        cwd=cwd,
        env={**env, **warm_variables()},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


# ---- The process that is forked -----------------------------------------------------------------------------


def serve(address: str) -> None:
    """Fork for each request until standard input ends; in a fork, be what was asked for."""
    import gc
    import select

    atexit.register(leave)  # before anybody else, so that it is called after them
    import_everything()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            with listener.accept()[0] as connection:
                if os.fork() == 0:
                    listener.close()
                    become(**request(connection))
                    return
            with suppress(ChildProcessError):  # where none is left
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def import_everything() -> None:
    """Import what lmshape and Snakemake import, and forget lmshape."""
    import importlib
    import pkgutil

    sys.path.insert(0, str(HERE.parents[1] / "workflow"))
    import lmshape

    for module in pkgutil.walk_packages(lmshape.__path__, "lmshape."):
        if module.name != "lmshape.__main__":
            importlib.import_module(module.name)
    for name in ("snakemake.cli", "snakemake.report", "snakemake.workflow"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lmshape"]:
        del sys.modules[name]


def request(connection: socket.socket) -> Mapping[str, object]:
    """Return in a fork, with the standard files of who asks, what it shall become; the other sends its exit status."""
    length, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(length)))
    process = os.fork()
    if process:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(str(status if status >= 0 else 128 - status).encode())
        os._exit(0)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return asked


def become(module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Be `python -m MODULE ARGUMENTS…` in a folder with an environment."""
    import importlib
    import runpy

    from huggingface_hub import constants
    from threadpoolctl import threadpool_limits

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:2] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *arguments]
    importlib.reload(constants)  # of the environment, as are the threads
    threadpool_limits(int(environment.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        leave.status = int(end.code or 0)
    else:
        leave.status = 0


def leave() -> None:
    """End without freeing one by one the objects of all imports, which takes longer than a small job."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(leave.status)


leave.status = 1


# ---- Who asks it --------------------------------------------------------------------------------------------


def ask(flag: str, module: str, *arguments: str) -> int:
    """Let a fork with this process's folder, environment and standard files run a module; return its exit status."""
    assert flag == "-m", flag
    where = {"folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps({"module": module, "arguments": arguments, **where}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        socket.send_fds(connection, [len(content).to_bytes(4)], [0, 1, 2])
        connection.sendall(content)
        return int(connection.recv(16) or 1)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(*sys.argv[1:]))
