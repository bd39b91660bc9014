"""The budgets of Durward, each beside the figure that it is for, and the names of the figures.

"All" services and "few" are as many as the run's sizes say. Of ours, the api is counted apart.
"""

from __future__ import annotations

from figures import FLOOR, Budget, Figure

SIZED = 1000  # services: what "all" is in the budgets

START = "all services, launch to all started"
CRASH = "crash to replacement running"
CRASH_ASKED = "crash to replacement with all services, the status being asked for without a pause"
MEMORY = "memory (PSS) with all services"
PROCESSES = "its own processes with all services"
IDLE_CPU = "idle with few services: CPU"
IDLE_SWITCHES = "idle with few services: context switches"
STATUS = "status of all services, over root.sock"
STATUS_ALL = "status of all services, the whole command"
STATUS_ONE = "status of one of all services, the whole command"
CONTROL = "kill -9 of privileged with all services, to in control again"
LOG = "log throughput, lines of 100 bytes in writes of 64 KiB"
LOG_STAMPED, LOG_JSON = "the same, each line with its time", "the same, each line as JSON"
LOG_CPU = "CPU for each 100 MB of that log, loggers of its own included"

SECONDS, MILLISECONDS, MEBIBYTES = Figure("s", 2), Figure("ms"), Figure("MiB")
NUMBER, RATE = Figure("number", 0), Figure("MB/s", 0, more_is_better=True)

BUDGETS = (
    Budget(START, 0.5, "best peer"),
    Budget(CRASH, 1.0, "best peer"),
    Budget(MEMORY, 1.0, "best peer"),
    Budget(IDLE_CPU, 1.0),  # none, but the minute's heartbeat when it falls into the time:
    Budget(IDLE_SWITCHES, 4.0),  # privileged asks log, log answers, and each goes to sleep again
    Budget(STATUS, 10.0),
    Budget(STATUS_ALL, 60.0),
    Budget(STATUS_ALL, 0.5, "supervisord"),
    Budget(CONTROL, 500.0),
    Budget(LOG, 0.8, FLOOR, at_least=True),
    Budget(LOG, 1.5, "best peer", at_least=True),
)
