"""count.py: numbered lines to standard output, some thousand a second; "end N" when it is told to end."""

import os
import signal
import sys
import time

ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
number = 0
while not ended:
    for _ in range(4):
        os.write(1, f"{number} {'x' * (number % 97)}\n".encode())  # shorter than PIPE_BUF: whole or not at all
        number += 1
    time.sleep(0.001)
os.write(1, f"end {number}\n".encode())
sys.exit(0)
