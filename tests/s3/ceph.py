"""A real S3 server for tests: Ceph's RADOS gateway over one monitor and one OSD that keeps all in memory.

Needs Debian's packages `radosgw ceph-osd ceph-mon ceph-common` (`make s3-server` installs them). Everything
listens on loopback and lives in one scratch folder.
"""

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from waiting import free_port, http_status, wait_for

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ACCESS_KEY = "gaxaccesskey1"
SECRET_KEY = "gaxsecretkey1"  # noqa: S105 (of a server that lives as long as a test)
WORKER = "worker"
WORKER_ACCESS_KEY = "gaxworkerkey1"
WORKER_SECRET_KEY = "gaxworkersecret1"  # noqa: S105 (as above)
MEMORY_BYTES = 3 * 1024**3
START_SECONDS = 90

SETTINGS = """
[global]
fsid = {fsid}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {memory}
mon allow pool size one = true
run dir = {folder}
log file = {folder}/$name.log
crush location = root=default host=localhost
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client]
ms mon client mode = crc
ms client mode = crc
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
"""


def missing_programs() -> list[str]:
    """Which of Ceph's programs this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server below an empty folder, yield its endpoint, and stop it."""
    port = free_port()
    monitor = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]"
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    settings = folder / "ceph.conf"
    settings.write_text(
        SETTINGS.format(fsid=fsid, monitor=monitor, folder=folder, memory=MEMORY_BYTES, port=port)
    )
    common = ["-c", str(settings)]
    keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
    _call("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "client.admin")
    _call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, monmap)
    _call("ceph-mon", *common, "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, "ceph-mon", *common, "-i", "a", "-f"))
        wait_for(
            lambda: _succeeds("ceph", *common, "--connect-timeout", "5", "osd", "new", osd, "0"),
            "Ceph",
            START_SECONDS,
        )
        _call("ceph-osd", *common, "-i", "0", "--mkfs", "--osd-objectstore", "memstore", "--osd-uuid", osd)
        stack.enter_context(_daemon(folder, "ceph-osd", *common, "-i", "0", "-f"))
        stack.enter_context(_daemon(folder, "radosgw", *common, "-n", "client.admin", "-f"))
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(lambda: http_status(endpoint) is not None, "Ceph", START_SECONDS)
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        user = ["user", "create", "--uid=gax", "--display-name=gax", *keys]
        wait_for(
            lambda: _succeeds("radosgw-admin", *common, *user) or _has_user(common), "Ceph", START_SECONDS
        )
        keys = [f"--access-key={WORKER_ACCESS_KEY}", f"--secret-key={WORKER_SECRET_KEY}"]
        _call(
            "radosgw-admin", *common, "user", "create", f"--uid={WORKER}", f"--display-name={WORKER}", *keys
        )
        yield endpoint


def _has_user(common: Sequence[str]) -> bool:
    found = subprocess.run(
        ["radosgw-admin", *common, "user", "list"],
        capture_output=True,
        check=False,
    )
    return found.returncode == 0 and "gax" in json.loads(found.stdout)


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
