/* Preloaded into redis-server: every fsync takes a while, as on a busy disk. Then Redis holds writes back (up to 2 s
 * with `appendfsync everysec`), and a kill -9 loses what it had already acknowledged. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_a_while(void) {
    const char *milliseconds = getenv("SLOW_FSYNC_MILLISECONDS");
    if (milliseconds)
        usleep(1000 * (useconds_t)atoi(milliseconds));
}

int fsync(int fd) {
    wait_a_while();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_a_while();
    return (int)syscall(SYS_fdatasync, fd);
}
