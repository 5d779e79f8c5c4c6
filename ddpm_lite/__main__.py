"""`python -m ddpm_lite`: the command line, also under torchrun."""

import os
import sys

from .cli import main

code = main()
if code and "WORLD_SIZE" in os.environ:
    # the threads of a process group that was not taken apart abort an ordinary exit, and with it
    # the code that torchrun is to see
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
