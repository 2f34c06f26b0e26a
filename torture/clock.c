/* A wrong clock for one process: loaded with LD_PRELOAD, it moves the time of day by the seconds in TORTURE_CLOCK_FILE.
 * Monotonic clocks stay right, as they do on a machine whose time is set wrongly. The file is read about once a second. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static long offset_seconds;
static time_t read_at = -1;

static long offset(void) {
    struct timespec now;
    if (!real_gettime) real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec != read_at) {
        read_at = now.tv_sec;
        const char *path = getenv("TORTURE_CLOCK_FILE");
        FILE *file = path ? fopen(path, "re") : NULL;
        if (file) {
            long found;
            if (fscanf(file, "%ld", &found) == 1) offset_seconds = found;
            fclose(file);
        }
    }
    return offset_seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    long moved = offset();
    int status = real_gettime(id, at);
    if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += moved;
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return status;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
