# SPDX-License-Identifier: MIT
"""The real nicd with the nicd-soft that it starts, in a directory of its own; and what must hold when a test is over and when
it stops."""
import contextlib
import ctypes
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

from .paths import nicd_binary, soft_binary
from .pb import pb
from .wire import Session

SANITIZER_WORDS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "UndefinedBehavior", "Assertion ", "assertion ")
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0


def configuration(limits=None, **sections):
    """A configuration file. Clients may connect to every port of the loopback network: the tests' ports come from the kernel."""
    sections = {"connect": {"allow": "127.0.0.0/8"}, "limits": limits or {}, **sections}
    return "".join(f"[{name}]\n" + "".join(f"{key.replace('_', '-')} = {value}\n" for key, value in keys.items()) + "\n"
                   for name, keys in sections.items() if keys)


RUNNING = set()   # pids of the daemons that run now

# Orphans of a daemon become ours, so that they are seen.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid):
    """Processes whose parent is `pid`: {pid: name}, without zombies."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = pathlib.Path("/proc", entry, "stat").read_text()
            name, rest = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2:].split()
            if int(rest[1]) == pid and rest[0] != "Z":
                found[int(entry)] = name
    return found


def wait_until(what, timeout=10.0, pause=0.01):
    """Waits until what() is true; answers its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = what()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(pause)


def sanitizer_environment(directory):
    env = dict(os.environ)
    env["ASAN_OPTIONS"] = "detect_leaks=1:halt_on_error=1:exitcode=86:disable_coredump=1:allocator_may_return_null=1"
    env["UBSAN_OPTIONS"] = "halt_on_error=1:print_stacktrace=1:exitcode=87"
    env["XDG_RUNTIME_DIR"] = str(directory)
    return env


class Nicd:
    """One nicd. `options` are further arguments; `config` the text of its configuration file."""

    def __init__(self, address="127.0.0.1", options=(), config=None, start=True, provider="soft"):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="nicd-"))
        self.address = address
        self.provider = provider
        self.options = list(options)
        self.socket = self.directory / "s"
        self.admin_socket = self.directory / "a"
        self.log = self.directory / "log"
        self.config = self.directory / "nicd.conf"
        self.config.write_text(configuration() if config is None else config)
        self.process = None
        self.soft = {}
        self._admin = None
        self.base_fds = None
        if start:
            self.start()

    def arguments(self):
        return [str(nicd_binary()), "--rootless", "--provider", self.provider, "--socket", str(self.socket), "--admin-socket",
                str(self.admin_socket), "--data-listen", f"{self.address}:0", "--soft-program", str(soft_binary()),
                "--config", str(self.config), *self.options]

    # Of those who derive from this: what is done in the new process.
    before_exec = None

    def start(self):
        ready, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen([*self.arguments(), "--ready-fd", str(theirs)], stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, pass_fds=[theirs], env=sanitizer_environment(self.directory),
                                                cwd=self.directory, preexec_fn=self.before_exec)
        finally:
            os.close(theirs)
        RUNNING.add(self.pid)
        try:
            told = select.select([ready], [], [], START_TIMEOUT)[0] and os.read(ready, 16)
        finally:
            os.close(ready)
        if told != b"\n":
            text = self.log_text()
            self.kill()
            raise AssertionError(f"nicd did not become ready (said {told!r}):\n{text}")
        self.soft = children(self.process.pid)

    # Looking.

    @property
    def pid(self):
        return self.process.pid

    @property
    def soft_pid(self):
        pid, = self.soft
        return pid

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def open_fds(self, pid=None):
        return len(os.listdir(f"/proc/{pid or self.pid}/fd"))

    def session(self, **kw):
        return Session(self.socket, **kw)

    def admin(self):
        """The one admin session that looks on."""
        if self._admin is None:
            self._admin = Session(self.admin_socket, label="test admin")
        return self._admin

    def drop_admin(self):
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def data_address(self):
        adapter = self.admin().hello.adapters[0]
        host, port = adapter.data_address.rsplit(":", 1)
        return host, int(port)

    def ledger(self):
        return self.admin().ledger()

    def debts(self, fds=True):
        """What is not zero in the ledger although no client is connected; {} is as it must be."""
        ledger = self.ledger()
        debts = {f"{a.account} {c.slot}": c.used for a in ledger.accounts for c in a.charges if c.used}
        for name in ("sessions", "held_fds", "objects", "calls", "provider_tags", "provider_memories", "provider_streams",
                     "provider_tickets", "quarantined"):
            if getattr(ledger, name):
                debts[name] = getattr(ledger, name)
        if ledger.admin_sessions != 1:
            debts["admin_sessions"] = ledger.admin_sessions
        if fds and self.base_fds is not None and ledger.open_fds != self.base_fds[0]:
            debts["open_fds"] = (ledger.open_fds, self.base_fds[0])
        if fds and self.base_fds is not None:
            soft = [self.open_fds(pid) for pid in self.soft]
            if soft != self.base_fds[1]:
                debts["open_fds of nicd-soft"] = (soft, self.base_fds[1])
        return debts

    def remember_fds(self):
        """What is open now is what must be open whenever no client is connected."""
        self.admin()
        seen = []

        def settled():
            """Sockets and memory are closed by other threads, which may be at it still: the same five times in a row."""
            seen.append((self.ledger().open_fds, [self.open_fds(pid) for pid in self.soft]))
            return len(seen) >= 5 and all(s == seen[-1] for s in seen[-5:])

        assert wait_until(settled, pause=0.02), f"what is open changes without end: {seen[-5:]}"
        self.base_fds = seen[-1]

    def assert_clean(self, timeout=10.0):
        """Everything that clients held is given back."""
        debts = {}

        def clean():
            nonlocal debts
            debts = self.debts()
            return not debts

        assert wait_until(clean, timeout, 0.02), f"not given back: {debts}"

    def assert_healthy(self):
        assert self.alive(), f"nicd died ({self.process.returncode}):\n{self.log_text()[-6000:]}"
        for pid in self.soft:
            assert os.path.exists(f"/proc/{pid}"), f"nicd-soft died:\n{self.log_text()[-6000:]}"
        self.assert_no_report()

    def assert_no_report(self):
        text = self.log_text()
        for word in SANITIZER_WORDS:
            assert word not in text, text[-8000:]

    # Ending.

    def kill(self):
        """The way out of a broken test: nothing is asserted, nothing is left."""
        self.drop_admin()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            RUNNING.discard(self.pid)
        for pid in self.soft:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def left(self):
        """Processes that this daemon, or one that died unseen, left behind."""
        return {pid for pid, name in children(os.getpid()).items()
                if pid in self.soft or (name.startswith("nicd") and pid not in RUNNING)}

    def stop(self):
        """SIGTERM, and all that must be true then."""
        self.drop_admin()
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                code = self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"nicd did not stop in {STOP_TIMEOUT} s:\n{self.log_text()[-4000:]}") from None
            RUNNING.discard(self.pid)
            assert wait_until(lambda: not self.left(), 2.0), "nicd left processes behind"
            self.assert_no_report()
            assert code == 0, f"nicd ended with {code}:\n{self.log_text()[-8000:]}"
            left = [str(p) for p in self.directory.rglob("*") if p.is_socket()]
            assert not left, f"nicd left sockets behind: {left}"
        finally:
            self.kill()


def warm_up(nicd):
    """Uses everything once, so that what is opened lazily is open; then remembers what is open."""
    from .memory import Buffer
    with nicd.session(label="warm-up") as s, Buffer(8192) as memory:
        pd = s.create_pd()
        mr = s.region(pd, memory.fd, 8192, pb.MR_ALLOW_REMOTE_READ)
        s.export(mr, "warm-up", pb.MR_ALLOW_REMOTE_READ)
    wait_until(lambda: not nicd.debts(fds=False))
    nicd.remember_fds()
