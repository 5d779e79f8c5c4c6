"""What holds for all tests: fixed properties, and a Ctrl-C that is heard.

Properties are drawn from a fixed seed and never fail for being slow on a busy machine. A process
that a shell started in the background ignores SIGINT, and so would the commands whose Ctrl-C is
tested here: they would never end.
"""

import signal

from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")
signal.signal(signal.SIGINT, signal.default_int_handler)
