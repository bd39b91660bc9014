"""A daemon of the old kind: it puts itself into the background, and writes its pid file then: `forker.py PID-FILE`."""

from __future__ import annotations

import os
import signal
import sys

if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(f"{sys.argv[1]}.new", "w") as file:
    file.write(f"{os.getpid()}\n")
os.rename(f"{sys.argv[1]}.new", sys.argv[1])
while True:
    signal.pause()
