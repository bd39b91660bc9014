"""lines.py FOLDER SECONDS: numbered lines to standard output, one each SECONDS; "end" with its number at SIGTERM.

Each line begins with the run's own name. How many were written is in a file of that name in FOLDER, whatever kills it:
the kernel has the page, so the line that follows may have been written too, and no other.
"""

import mmap
import os
import signal
import sys
import time

name = f"{os.getpid()}-{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}"
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
with open(os.open(f"{sys.argv[1]}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), "r+b") as file:
    file.write(bytes(8))
    file.flush()
    page = mmap.mmap(file.fileno(), 8)
number = 0
while not ended:
    os.write(1, f"{name} {number} {'x' * (number % 97)}\n".encode())  # shorter than PIPE_BUF: whole or not at all
    number += 1
    page[:] = number.to_bytes(8, "little")
    time.sleep(float(sys.argv[2]))
os.write(1, f"{name} {number} end\n".encode())
page[:] = (number + 1).to_bytes(8, "little")
