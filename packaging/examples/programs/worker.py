"""The demo's background worker: does nothing, every ten seconds, and says so, until SIGTERM."""

import select
import signal
import socket

wakeup, signals = socket.socketpair()
signals.setblocking(False)
signal.set_wakeup_fd(signals.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)

rounds = 0
print("worker: ready", flush=True)
while not select.select([wakeup], [], [], 10.0)[0]:
    rounds += 1
    print(f"worker: round {rounds}", flush=True)
print("worker: told to end, and ends", flush=True)
