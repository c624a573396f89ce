"""The command `gax` in a process of its own, with an engine that needs no TensorFlow.

`GAX_FAKE_LOG` is where the engine leaves its lines, `GAX_FAKE_SECONDS` how long it takes for a unit. With
`GAX_TERMINAL` set, standard input becomes the terminal whose Ctrl-C reaches this process and its children.
"""

import fcntl
import os
import termios
from functools import partial

from fake_engine import fake_engine

from gax_batch.cli import main
from gax_batch.runner import run

if __name__ == "__main__":
    if os.environ.get("GAX_TERMINAL"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    seconds = float(os.environ.get("GAX_FAKE_SECONDS", "0"))
    run.load_engine = partial(fake_engine, log=os.environ.get("GAX_FAKE_LOG"), seconds=seconds)
    main()
