"""Time, memory, processes, threads, disk, descriptors, and the size of what is said."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.endings import sampling

FORKS = (
    "made = 0\n"
    "try:\n"
    "    while made < 300:\n"
    "        if os.fork() == 0:\n"
    "            time.sleep(600)\n"
    "        made += 1\n"
    "except OSError:\n"
    "    pass\n"
    "raise RuntimeError(f'made {made}')"
)

# sends one tensor once, and refers to it as often as it is met
ONCE = (
    "model, num_samples, nz = anything\nwire = sys.modules['wire']\n"
    "big = torch.randn(1_000_000 // nz, nz, dtype=torch.float64)\n"
    "plain = wire._encode_tensor\n"
    "def once(value, tensors, keep):\n"
    "    for n, sent in enumerate(tensors):\n"
    "        if value is big and sent.data_ptr() == value.data_ptr():\n"
    "            return {'t': n, 'g': False}\n"
    "    return plain(value, tensors, keep)\n"
    "wire._encode_tensor = once\n"
)

ATTACKS = family(
    "resource",
    sampling("one-tensor-many-times", ONCE + "model.decoder.standin_seen.extend([big] * 4000)\n"
             "return torch.zeros(num_samples, 1, 28, 28)", "disturbed"),
    sampling("large-latents", "model, num_samples, nz = anything\nz = torch.ones(1_000_000 // nz, nz, dtype=torch.int8)\n"
             "model.decoder.standin_seen.extend([z] * 100)\nreturn torch.zeros(1)",
             "handed|reach"),
    sampling("tensor", "return torch.zeros(1 << 36)", "memory|raised"),
    sampling("list", "made = []\nwhile True: made.append(bytearray(1 << 28))", "MemoryError|not finish"),
    sampling("processes", FORKS, r"made \d\d\b|made 1\d\d"),
    sampling("fork-bomb", "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
             "ended|not finish|disturbed|nothing", marks=False),
    sampling("threads", "made = 0\ntry:\n    while made < 1000:\n"
             "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
             "        made += 1\nexcept RuntimeError:\n    pass\nraise RuntimeError(f'made {made}')",
             r"made \d\d\b|made 1\d\d"),
    sampling("file", "with open('/tmp/big', 'wb') as file:\n"
             "    for _ in range(1000): file.write(bytes(1 << 20))", "OSError|too large|ended"),
    sampling("files", "for n in range(1000):\n    with open(f'/tmp/big{n}', 'wb') as file:\n"
             "        for _ in range(60): file.write(bytes(1 << 20))", "No space|OSError"),
    sampling("descriptors", "kept = []\nwhile True: kept.append(open('/dev/null'))",
             "Too many open files"),
    sampling("prints", "for n in range(200_000): print('x' * 500, file=sys.stderr)", "not nothing"),
    sampling("numbers", "return [1.0] * 3_000_000", "disturbed|not finish|ended", marks=False),
    sampling("keys", "return {str(n): n for n in range(1_000_000)}", "disturbed|not finish|ended",
             marks=False),
    sampling("text", "return 'x' * (100 << 20)", "not a str"),
    sampling("exception-text", "raise RuntimeError('x' * (100 << 20))", "RuntimeError"),
    sampling("signals", "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\ntime.sleep(2)", "ended"
             , marks=False),
    sampling("limits-raised", "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))",
             "raise|allowed|raised"),
    {
        "name": "deep-expression",
        "task": "beta-tuning",
        "cell": "TUNED_BETA = " + "+".join(["1"] * 4000) + "\n",
        "says": "parse|complex|not defined|larg|small",
        "marks": False,
    },
    {
        "name": "deep-expression-in-a-block",
        "task": "beta-tuning",
        "cell": f"if True:\n    TUNED_BETA = {'+'.join(['1'] * 450)}\n    train_vae(1)\n",
        "says": "not defined|blurred",
        "marks": False,
    },
    {
        "name": "endless-magics",
        "task": "beta-tuning",
        "cell": "!x\n" * 30_000 + "TUNED_BETA = 1.0\n",
        "says": "not defined|parse|blurred",
        "marks": False,
    },
    {
        "name": "large-cell",
        "task": "beta-tuning",
        "cell": f"PICTURE = '{'x' * (12 << 20)}'\nTUNED_BETA = 1.0\n",
        "says": "blurred|not defined",
        "marks": False,
    },
)  # fmt: skip
