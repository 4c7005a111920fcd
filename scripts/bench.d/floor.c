/* floor: the least that starting a QEMU and speaking to it can cost.
 *
 * usage: floor TIMES QEMU ARGUMENT...     starts it TIMES times; QMP is on file descriptor 3
 *
 * Each time: socketpair, posix_spawn, greeting, qmp_capabilities, query-status, quit, wait.
 * Prints for each, in microseconds: to the answer of query-status, and from quit to the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

/* Reads up to the end of a line that holds WANTED; events come in between. */
static void await_line(int fd, const char *wanted)
{
    static char buffer[1 << 16];
    size_t used = 0;
    for (;;) {
        ssize_t got = read(fd, buffer + used, sizeof buffer - 1 - used);
        if (got <= 0) {
            fprintf(stderr, "floor: QEMU closed its monitor\n");
            exit(1);
        }
        used += (size_t)got;
        buffer[used] = '\0';
        char *end = strrchr(buffer, '\n');
        if (end && strstr(buffer, wanted))
            return;
        if (used == sizeof buffer - 1)
            used = 0;
    }
}

static void say(int fd, const char *request)
{
    if (write(fd, request, strlen(request)) < 0)
        fail("write");
}

static pid_t start(char **argv, int monitor)
{
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    /* Moved out of the way first: a dup2 onto itself would keep close-on-exec on older libcs. */
    posix_spawn_file_actions_adddup2(&actions, monitor, 100);
    posix_spawn_file_actions_adddup2(&actions, 100, 3);
    posix_spawn_file_actions_addclose(&actions, 100);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    if (posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ))
        fail(argv[0]);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: floor TIMES QEMU ARGUMENT...\n");
        return 2;
    }
    for (int left = atoi(argv[1]); left > 0; left--) {
        int pair[2], status;
        long begun = microseconds();
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
            fail("socketpair");
        pid_t pid = start(argv + 2, pair[1]);
        close(pair[1]);
        await_line(pair[0], "\"QMP\"");
        say(pair[0], "{\"execute\":\"qmp_capabilities\"}\n");
        await_line(pair[0], "\"return\"");
        say(pair[0], "{\"execute\":\"query-status\"}\n");
        await_line(pair[0], "\"status\"");
        long ready = microseconds();
        say(pair[0], "{\"execute\":\"quit\"}\n");
        if (waitpid(pid, &status, 0) != pid)
            fail("waitpid");
        long ended = microseconds();
        close(pair[0]);
        printf("%ld %ld\n", ready - begun, ended - ready);
    }
    return 0;
}
