# SPDX-License-Identifier: MIT
"""Debian's own kernel, its modules and an initramfs, all in a folder of the build: made once, used again. The kernel is the one that the
installed headers belong to, so that modules of our own can be built for it (tests/vm/module/)."""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
HEADERS = "linux-headers-amd64"
IMAGE = "linux-image-"
# For the machine itself: its disk, its network, its shared folders. crc32_generic: rdma_rxe asks for it by name.
BASE = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "crc32_generic", "crc32c_generic")


class Missing(Exception):
    """Something that the machine needs is not there."""


def run(*command, **kw):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **kw)
    if done.returncode:
        raise Missing(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def need_program(name):
    if not shutil.which(name):
        raise Missing(f"there is no {name}; packaging/install-deps vm installs it")


class Kernel:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.version = self._version()
        self.headers = pathlib.Path("/usr/src", f"linux-headers-{self.version}")
        self.root = self.folder / self.version
        self.image = self.root / "boot" / f"vmlinuz-{self.version}"
        self.modules = self.root / "lib" / "modules" / self.version
        self._fetch()

    @staticmethod
    def _version():
        depends = subprocess.run(["dpkg-query", "-W", "-f", "${Depends}", HEADERS], capture_output=True, text=True, check=False).stdout
        found = re.search(r"linux-headers-(\S+)", depends)
        if not found or not pathlib.Path("/usr/src", found[0]).exists():
            raise Missing(f"{HEADERS} is not installed; packaging/install-deps vm installs it")
        return found[1]

    @property
    def package_version(self):
        return (self.root / "package-version").read_text()

    def _fetch(self):
        """The image is not installed, only unpacked."""
        if (self.root / "package-version").exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        try:
            run("apt-get", "download", IMAGE + self.version, cwd=self.root)
        except Missing as why:
            raise Missing(f"{why}\nNo kernel package. If apt has a newer one only: apt-get update && apt-get install {HEADERS}") from None
        package, = self.root.glob("*.deb")
        run("dpkg-deb", "-x", package, self.root)
        version = run("dpkg-deb", "-f", package, "Version").strip()
        package.unlink()
        run("depmod", "-b", self.root, self.version)
        (self.root / "package-version").write_text(version)

    def add(self, name):
        """Builds what tests/vm/module/NAME makes: modules that are not in Debian's kernel."""
        script = HERE / "module" / name
        if not script.exists():
            raise Missing(f"there is no {script}")
        recipe = hashlib.sha256(script.read_bytes() + self.package_version.encode()).hexdigest()
        place = self.modules / "extra" / name
        stamp = place / "recipe"
        if stamp.exists() and stamp.read_text() == recipe:
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        run(script, self.headers, self.package_version, place)
        run("depmod", "-b", self.root, self.version)
        stamp.write_text(recipe)

    def closure(self, names):
        """The files of these modules and of all that they need, in the order of loading."""
        files = []
        for name in (*BASE, *names):
            told = run("modprobe", "-S", self.version, "-d", self.root, "--show-depends", name)
            files += [line.split()[1] for line in told.splitlines() if line.startswith("insmod ")]
        return list(dict.fromkeys(files))

    def initramfs(self, names, job, target):
        """Writes the initramfs that loads these modules and then runs the job, a shell script."""
        tree = target.with_suffix(".tree")
        shutil.rmtree(tree, ignore_errors=True)
        for name in ("bin", "proc", "sys", "dev", "host", "over", "new", "modules"):
            (tree / name).mkdir(parents=True)
        order = []
        for i, file in enumerate(self.closure(names)):
            order.append(f"{i:03}-{os.path.basename(file)}")
            shutil.copyfile(file, tree / "modules" / order[-1])
        (tree / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
        shutil.copy("/bin/busybox", tree / "bin" / "busybox")
        shutil.copy(HERE / "init", tree / "init")
        (tree / "job").write_text(job)
        run("sh", "-c", f"cd '{tree}' && find . | cpio --quiet -o -H newc >'{target.resolve()}'")
        shutil.rmtree(tree)
