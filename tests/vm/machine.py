# SPDX-License-Identifier: MIT
"""One guest: boots, runs its script on the host's files (read-only, with a tmpfs above), brings back what it left, and is gone."""
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

from kernel import HERE, need_program

QEMU = "qemu-system-x86_64"
# Emulated: /dev/kvm may be there and not work.
ACCELERATOR = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max")
COMPLAINTS = re.compile(r"BUG:|Oops|Kernel panic|Call Trace|general protection|UBSAN:|WARNING: CPU|blocked for more than")


class Guest:
    """A file of tests/vm/guest/. It says what it needs in comments: `# vm: modules A B`, `# vm: build A` (tests/vm/module/A), `# vm:
    memory 2G`, `# vm: timeout 120` (seconds), `# vm: check A B` (tests/vm/check/A with argument B judges on the host what it left). It runs as root; what it writes to $OUT comes back; $OUT/results.xml (JUnit), if it
    writes one, has its cases, and else its exit code is the only one."""

    def __init__(self, path):
        self.path = pathlib.Path(path).resolve()
        self.name = self.path.stem
        self.needs = {"modules": "", "build": "", "memory": "2G", "timeout": "120", "check": ""}
        for key, value in re.findall(r"^# vm: (\w+) (.+)$", self.path.read_text(), re.M):
            if key not in self.needs:
                raise ValueError(f"{self.path}: there is no '# vm: {key}'")
            self.needs[key] = value

    def words(self, key):
        return self.needs[key].split()


class Machine:
    def __init__(self, kernel, guest, folder, environment):
        need_program(QEMU)
        self.kernel, self.guest, self.folder = kernel, guest, pathlib.Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.out = self.folder / "out"
        self.out.mkdir(parents=True)
        self.console = self.folder / "console.log"
        self.process = None
        self.code = None          # of the guest's script; None: it did not come to its end
        self.seconds = 0.0
        job = "".join(f"export {k}={shlex.quote(str(v))}\n" for k, v in environment.items())
        kernel.initramfs(guest.words("modules"), f"GUEST={shlex.quote(str(guest.path))}\n{job}{(HERE / 'job').read_text()}",
                         self.folder / "initramfs")

    def arguments(self):
        return [QEMU, *ACCELERATOR, "-m", self.guest.needs["memory"], "-smp", "2", "-nodefaults", "-no-reboot", "-display", "none",
                "-serial", f"file:{self.console}", "-kernel", str(self.kernel.image), "-initrd", str(self.folder / "initramfs"),
                "-append", "console=ttyS0 panic=-1 quiet mitigations=off secretmem.enable=1",
                "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
                "-virtfs", f"local,path={self.out},mount_tag=out,security_model=none,multidevs=remap"]

    def run(self):
        start = time.monotonic()
        with open(self.folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.process.wait(float(self.guest.needs["timeout"]))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.end()
        self.seconds = time.monotonic() - start
        told = re.findall(r"^vm: ended with (\d+)\r?$", self.read(self.console), re.M)
        self.code = int(told[-1]) if told else None

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        (self.folder / "initramfs").unlink(missing_ok=True)

    @staticmethod
    def read(path):
        return path.read_text(errors="replace") if path.exists() else ""

    def wrong(self):
        """What is wrong with the run itself; None: nothing."""
        if self.code is None:
            limit = self.seconds >= float(self.guest.needs["timeout"])
            return f"the guest did not come to its end {'in ' + self.guest.needs['timeout'] + ' s' if limit else 'but died'}"
        complaint = COMPLAINTS.search(self.read(self.console) + self.read(self.out / "dmesg.log"))
        if complaint:
            return f"the guest's kernel complained: {complaint[0]}"
        return None

    def logs(self):
        """The ends of what it said."""
        pieces = []
        for path in (self.folder / "qemu.log", self.console, self.out / "output.log"):
            text = self.read(path).strip()
            if text:
                pieces.append(f"--- {path}\n{text[-6000:]}")
        return "\n".join(pieces)
