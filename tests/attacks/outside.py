"""The outside world: network, devices, mounts, memory of others, leftovers."""

from __future__ import annotations

from tests.attacks.attack import LEFTOVER, family
from tests.attacks.endings import sampling
from tests.attacks.knowing import reaches

TRY = "try:\n    %s\n    found.append('done')\nexcept (OSError, ValueError):\n    pass"
LIBC = "libc = ctypes.CDLL(None, use_errno=True)\nif libc.%s == 0: found.append('done')"

ATTACKS = family(
    "outside",
    reaches("connect", TRY % "socket.create_connection(('192.0.2.1', 80), timeout=1)"),
    reaches("connect-to-the-host", TRY % "socket.create_connection(('127.0.0.1', 22), timeout=1)"),
    reaches("name-service", TRY % "socket.getaddrinfo('example.org', 80)"),
    reaches("interfaces", "try:\n    found += [n for _, n in socket.if_nameindex() if n != 'lo']\n"
            "except OSError:  # what it asks by is refused\n    pass"),
    reaches("raw-socket", TRY % "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    reaches("mount", LIBC % "mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    reaches("unmount", LIBC % "umount2(b'/tmp', 2)"),
    reaches("chroot", TRY % "os.chroot('/tmp')"),
    reaches("root", TRY % "os.setuid(0)"),
    reaches("device", TRY % "os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))"),
    reaches("memory-of-the-first", TRY % "open('/proc/1/mem', 'rb').read(1)"),
    reaches("kernel", TRY % "open('/dev/mem', 'rb').read(1)"),
    reaches("kernel-settings", TRY % "open('/proc/sys/kernel/hostname', 'w').write('x')"),
    reaches("cgroups", TRY % "os.mkdir('/sys/fs/cgroup/x')"),
    reaches("interpreter", TRY % "open(os.__file__, 'a')"),
    reaches("worker", TRY % "open('/grader/worker/serve.py', 'a')"),
    reaches("root-folder", TRY % "open('/leftover', 'w')"),
    reaches("dev-folder", TRY % "open('/dev/leftover', 'w')"),
    reaches("set-user-id", "import stat\nfor p in ('/usr/bin', '/bin'):\n"
            "    for n in os.listdir(p):\n        try:\n"
            "            if os.stat(f'{p}/{n}').st_mode & stat.S_ISUID and "
            "subprocess.run([f'{p}/{n}', '--help'], capture_output=True, timeout=2) and "
            "os.geteuid() == 0: found.append(n)\n        except (OSError, subprocess.SubprocessError):\n"
            "            pass", says="kept out|not finish"),
    sampling("leftover", "if os.fork() == 0:\n    os.setsid()\n    os.execv(sys.executable, "
             f"[sys.executable, '-c', 'import time; time.sleep({LEFTOVER})'])\ntime.sleep(0.3)",
             "not nothing"),
)  # fmt: skip
