/*
 * ujail: stands for OpenWrt's jail of a service: `ujail -n NAME [-l] -- COMMAND`.
 *
 * From the sources of procd (jail/jail.c) and what was seen on a 23.05 router: the process that procd knows stays outside
 * and hands signals on; the command is process 1 of its own PID namespace (dnsmasq logs as dnsmasq[1]); with -l its mount
 * namespace has a bind mount of the socket /dev/log. When logd makes a new socket, the jail keeps the deleted one:
 * /proc/PID/mountinfo says "/log//deleted /dev/log".
 *
 * Differences: all other files are the router's own; no seccomp, capabilities, users and cgroups.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* A /dev of its own, since what is mounted on the router's own file goes when that file goes. */
static void jail_dev(void)
{
	static const char *const devices[] = {"log", "null", "zero", "random", "urandom"};
	char from[64], to[64];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/mnt", "tmpfs", MS_NOSUID, "mode=755"))
		die("ujail: /dev");
	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++) {
		int fd;

		snprintf(from, sizeof(from), "/dev/%s", devices[i]);
		snprintf(to, sizeof(to), "/mnt/%s", devices[i]);
		if (access(from, F_OK))
			continue;
		fd = open(to, O_CREAT | O_WRONLY, 0644);
		if (fd < 0 || mount(from, to, NULL, MS_BIND, NULL))
			die(to);
		close(fd);
	}
	if (mount("/mnt", "/dev", NULL, MS_MOVE, NULL))
		die("ujail: /dev");
}

int main(int argc, char **argv)
{
	bool log = false;
	int opt, status, caught;
	sigset_t all, before;
	pid_t child;

	while ((opt = getopt(argc, argv, "+n:l")) != -1)
		log = log || opt == 'l';
	if (!argv[optind]) {
		fprintf(stderr, "usage: ujail -n NAME [-l] -- COMMAND\n");
		return 1;
	}
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	if (unshare(CLONE_NEWPID))
		die("ujail");
	child = fork();
	if (child < 0)
		die("ujail");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (log)
			jail_dev();
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(argv[optind], argv + optind);
		_exit(127);
	}
	for (;;) {
		sigwait(&all, &caught);
		if (caught != SIGCHLD)
			kill(child, caught);
		else if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}
