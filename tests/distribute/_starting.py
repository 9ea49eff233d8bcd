"""Starts the processes that tests of several devices look at."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# Nothing here takes half of it, on two busy cores.
PATIENCE = 300


def run_python(module, *arguments):
    """Runs a module of the tests, and says what it wrote if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=TESTS,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def free_ports(count):
    """Ports that nobody listens at just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def config_of(rank, ports):
    """What `TF_CONFIG` says to a worker on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


class Workers:
    """Processes that run the same module, each with its `TF_CONFIG`."""

    def __init__(self, folder, module, arguments, count=2):
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(count)
        self.logs = [folder / f"log-{rank}" for rank in range(count)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            # They differ in what is given as a list.
            own = [a[rank] if isinstance(a, list) else a for a in arguments]
            with open(log, "w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", module, *map(str, own)],
                        cwd=TESTS,
                        env=_environment(TF_CONFIG=config_of(rank, ports)),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def wait(self):
        """Returns the exit codes; fails where one does not end."""
        try:
            return [process.wait(PATIENCE) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def succeed(self):
        """Waits, and says what they wrote if one failed."""
        codes = self.wait()
        assert codes == [0] * len(codes), "\n".join(map(self.log, (0, 1)))

    def log(self, rank):
        """The end of what a worker wrote."""
        return self.logs[rank].read_text()[-3000:]

    def kill(self, rank):
        """Kills one; nothing of it runs any more then."""
        self.processes[rank].send_signal(signal.SIGKILL)
        self.processes[rank].wait()


def wait_until(condition, process):
    """Waits until something is so, while a process runs."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < ends
        time.sleep(0.02)


def _environment(**variables):
    path = f"{TESTS}{os.pathsep}{TESTS.parent}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return {**os.environ, "PYTHONPATH": path, **quiet, **variables}
