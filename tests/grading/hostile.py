"""Submissions to the exercise bits_per_dim: honest ones, and those that try something else.

Each is a cell of code with the verdict due. They run in the sandbox only.
"""

from __future__ import annotations

from typing import NamedTuple

FULL = 4.0

GOOD = """
import math
def bits_per_dim(log_prob, shape):
    return -log_prob / (math.prod(shape) * math.log(2))
"""
WRONG = """
import math
def bits_per_dim(log_prob, shape):
    return log_prob * 0
"""


def during(*lines: str) -> str:
    """The right answer, with something done first, inside the function."""
    body = "".join(f"    {line}\n" for line in lines)
    head = """
import ctypes, json, math, os, pickle, signal, struct, sys, time, torch
"""
    return f"{head}def bits_per_dim(log_prob, shape):\n{body}    return {VALUE}\n"


VALUE = "-log_prob / (math.prod(shape) * math.log(2))"
CANNOT = during("return log_prob * 0")


def forged(header: str, payload: str = "b''") -> str:
    """A message written on the reply pipe before the worker's own."""
    return during(
        f"text = json.dumps({header}).encode()",
        "for fd in range(3, 12):",
        "    try: os.write(fd, struct.pack('>I', len(text)) + text + " + payload + ")",
        "    except OSError: pass",
        "return log_prob * 0",
    )


class Case(NamedTuple):
    code: str
    verdicts: str  # those that are due, any of them
    points: float = 0.0
    seconds: float = 30.0


SHORT = 1.0
OUTCOME = "[[['tensor', [0]]], '', False]"
HONEST = {
    "right": Case(GOOD, "pass", FULL),
    "magics": Case(
        """
%matplotlib inline
!pip install torch
%load_ext autoreload
x = !ls
"""
        + GOOD,
        "pass",
        FULL,
    ),
    "magic in a block": Case(
        """
try:
    import ddpm_lite
except ImportError:
    %pip install it
"""
        + GOOD,
        "pass",
        FULL,
    ),
    "cell magic": Case("%%time\n" + GOOD, "pass", FULL),
    "prints 5 MB": Case(during("print('x' * 5_000_000)"), "pass", FULL),
    "warns": Case(during("import warnings; warnings.warn('deprecated')"), "pass", FULL),
    "helper constants": Case(
        """
import math
LOG2 = math.log(2)
SCALE = 1 / LOG2
def bits_per_dim(log_prob, shape):
    return -log_prob * SCALE / math.prod(shape)
""",
        "pass",
        FULL,
    ),
    "imports what nobody has": Case(
        "import colorsys, encodings.idna, sqlite3\n" + during("colorsys.rgb_to_hsv(0, 0, 0)"),
        "pass",
        FULL,
    ),
    "plots": Case(
        "import matplotlib.pyplot as plt\n" + during("plt.plot([1]); plt.savefig('plot.png')"),
        "pass",
        FULL,
    ),
    "wrong": Case(WRONG, "wrong"),
    "unstable": Case(
        """
import math, torch
def bits_per_dim(log_prob, shape):
    return -log_prob.double().exp().log2().float() / math.prod(shape)
""",
        "wrong",
        3.0,
    ),
    "missing": Case("def bits(log_prob):\n    return 0", "exception"),
    "not written": Case(
        """
def bits_per_dim(log_prob, shape):
    raise NotImplementedError
""",
        "exception",
    ),
    "loop at top level": Case("while True:\n    pass\n" + GOOD, "pass", FULL),
    "raises": Case(during("raise ValueError('x')"), "exception"),
    "NaN": Case(during("return log_prob * float('nan')"), "wrong"),
    "empty": Case(during("return torch.zeros(0)"), "wrong"),
    "one number for all": Case(during("return torch.zeros(())"), "wrong"),
    "None": Case(during("pass").replace(VALUE, "None"), "wrong"),
    "text": Case(during("return 'full marks'"), "wrong"),
    "changes its argument": Case(
        during("return log_prob.neg_() / (math.prod(shape) * math.log(2))"), "wrong"
    ),
}

ENDINGS = {
    "loop": Case(during("while True: pass"), "timeout", seconds=SHORT),
    "loop that ignores SIGINT": Case(
        during("for s in (2, 15): signal.signal(s, signal.SIG_IGN)", "while True: time.sleep(9)"),
        "timeout",
        seconds=SHORT,
    ),
    "loop in a default": Case(
        """
import itertools
def bits_per_dim(a, b=[None for _ in itertools.count()]):
    return 0
""",
        "timeout crash",
        seconds=SHORT,
    ),
    "stops itself": Case(during("os.kill(os.getpid(), signal.SIGSTOP)"), "timeout", seconds=SHORT),
    "os._exit": Case(during("os._exit(0)"), "crash"),
    "sys.exit": Case(during("sys.exit(0)"), "exception"),
    "SystemExit": Case(during("raise SystemExit"), "exception"),
    "KeyboardInterrupt": Case(during("raise KeyboardInterrupt"), "exception"),
    "exit at top level": Case("import sys\ndef f(x=sys.exit(0)): pass\n" + GOOD, "pass", FULL),
    "segfault": Case(during("ctypes.string_at(0)"), "crash"),
    "recursion": Case(during("return bits_per_dim(log_prob, shape)"), "exception crash"),
    "kills its parent": Case(
        during("os.kill(os.getppid(), 9)", "time.sleep(5)"), "crash timeout exception pass", -1
    ),
    "kill(-1)": Case(during("os.kill(-1, 9)"), "crash timeout exception pass", -1),
    "closed descriptors": Case(during("os.closerange(0, 256)"), "crash"),
    "slow drip": Case(
        during("for _ in range(99): os.write(4, b'\\0' if _ else b'\\0\\0'), time.sleep(.2)"),
        "timeout wrong",
        seconds=SHORT,
    ),
    "memory bomb": Case(
        during("x = []", "while True: x.append(torch.ones(1 << 26))"), "crash timeout"
    ),
    "one big tensor": Case(during("torch.empty(1 << 50)"), "crash exception"),
}

CHEATS = {
    "prints success": Case("print('score 100/100')\n" + WRONG, "wrong"),
    "patches comparisons": Case(
        """
import torch, numpy as np, json, math
class Yes:
    torch.allclose = torch.equal = np.allclose = lambda *a, **k: True
    np.exp = math.log = lambda *a: 0
    torch.Tensor.__eq__ = lambda *a: True
"""
        + WRONG,
        "wrong exception",
    ),
    "patches json": Case(
        """
import json
class No:
    json.dumps = lambda *a, **k: '{"score": 100}'
"""
        + WRONG,
        "wrong",
    ),
    "patches the worker": Case(
        """
import sys
class W:
    for m in list(sys.modules.values()):
        if getattr(m, '__name__', '').startswith('ddpm_lite.grading'):
            for k in ('fault', 'perform', 'same', 'score'):
                if hasattr(m, k): setattr(m, k, lambda *a: None)
"""
        + WRONG,
        "wrong crash exception",
    ),
    "tensor that equals all": Case(
        """
import torch
class Yes(torch.Tensor):
    __eq__ = __le__ = __ge__ = lambda self, other: True
    def __torch_function__(self, *a, **k): return True
def bits_per_dim(log_prob, shape):
    return torch.zeros_like(log_prob).as_subclass(Yes)
""",
        "wrong ungradable exception",
    ),
    "array that equals all": Case(
        """
import numpy as np
class Yes(np.ndarray):
    __eq__ = lambda self, other: True
    def __array_ufunc__(self, *a, **k): return True
def bits_per_dim(log_prob, shape):
    return np.zeros(len(log_prob)).view(Yes)
""",
        "wrong",
    ),
    "number that equals all": Case(
        """
class Yes(float):
    __eq__ = __le__ = lambda self, other: True
def bits_per_dim(log_prob, shape):
    return Yes(0)
""",
        "wrong",
    ),
    "object array": Case(
        """
import numpy as np
def bits_per_dim(log_prob, shape):
    return np.array([object()] * len(log_prob))
""",
        "ungradable",
    ),
    "complex": Case(during("return log_prob + 1j"), "ungradable"),
    "keeps state": Case(
        """
seen = []
def bits_per_dim(log_prob, shape):
    seen.append(log_prob)
    return seen[0] * 0
""",
        "wrong",
    ),
    "forged reply": Case(
        forged("{'outcome': " + OUTCOME + ", 'arrays': [['float32', [1]]]}", "bytes(4)"), "wrong"
    ),
    "forged score": Case(
        forged("{'score': 100, 'points': 100, 'verdict': 'pass', 'arrays': []}"), "wrong"
    ),
    "spoofed shape": Case(
        forged("{'outcome': " + OUTCOME + ", 'arrays': [['float32', [1 << 40]]]}"), "wrong"
    ),
    "negative shape": Case(
        forged("{'outcome': " + OUTCOME + ", 'arrays': [['float32', [-1]]]}"), "wrong"
    ),
    "spoofed dtype": Case(
        forged("{'outcome': " + OUTCOME + ", 'arrays': [['O', [1]]]}", "bytes(8)"), "wrong"
    ),
    "no such array": Case(
        forged("{'outcome': [[['tensor', [99]]], '', False], 'arrays': []}"), "wrong"
    ),
    "deep nesting": Case(
        during(
            "text = b'[' * 200_000",
            "os.write(4, struct.pack('>I', len(text)) + text[:60000])",
            "os.write(4, text[60000:])",
            "return log_prob * 0",
        ),
        "wrong timeout crash",
        seconds=SHORT,
    ),
    "gigantic length": Case(during("os.write(4, b'\\xff' * 64)", "return log_prob * 0"), "wrong"),
    "pickle": Case(
        during(
            "class Evil:",
            "    def __reduce__(self): return (os.system, ('touch /tmp/unpickled-by-the-grader',))",
            "data = pickle.dumps(Evil())",
            "os.write(4, struct.pack('>I', len(data)) + data)",
            "return log_prob * 0",
        ),
        "wrong",
    ),
    "IPython hooks": Case(
        """
try:
    get_ipython().events.register('post_run_cell', lambda *a: None)
except NameError: pass
"""
        + WRONG,
        "wrong",
    ),
}
