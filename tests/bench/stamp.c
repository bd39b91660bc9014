/* stamp FILE INDEX [MIB]: the service that every manager of the benchmark runs. It appends one record, when its first
 * instruction ran and who it is, and waits for ever. Given MIB, it waits for SIGUSR1, writes so many MiB of lines of 100
 * bytes to its stdout, with a record before (INDEX + 1) and after (INDEX + 2), and waits for ever.
 * All lines are whole: it writes a little less than MIB where 100 does not divide it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, CHUNK = 64 * 1024 };

struct record {
    uint64_t nanoseconds; /* CLOCK_MONOTONIC */
    uint32_t pid, index;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void stamp(int fd, uint64_t when, uint32_t index) {
    struct record record = {when, (uint32_t)getpid(), index};
    if (write(fd, &record, sizeof record) != sizeof record)
        _exit(111);
}

static void flood(uint64_t left) {
    static char lines[CHUNK + LINE];
    left -= left % LINE;
    memset(lines, 'x', sizeof lines);
    for (size_t i = LINE - 1; i < sizeof lines; i += LINE)
        lines[i] = '\n';
    size_t at = 0; /* of LINE: a chunk begins where the last one broke off */
    while (left > 0) {
        ssize_t n = write(1, lines + at, left < CHUNK ? left : CHUNK);
        if (n < 0)
            _exit(111);
        left -= (uint64_t)n;
        at = (at + (size_t)n) % LINE;
    }
}

int main(int argc, char **argv) {
    uint64_t started = now();
    if (argc < 3)
        return 100;
    uint32_t index = (uint32_t)atoi(argv[2]);
    sigset_t go;
    sigemptyset(&go);
    if (argc > 3) {
        sigaddset(&go, SIGUSR1);
        sigprocmask(SIG_BLOCK, &go, NULL);
    }
    int fd = open(argv[1], O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return 111;
    stamp(fd, started, index);
    if (argc > 3) {
        int got;
        sigwait(&go, &got);
        stamp(fd, now(), index + 1);
        flood((uint64_t)atoll(argv[3]) << 20);
        stamp(fd, now(), index + 2);
    }
    close(fd);
    for (;;)
        pause();
}
