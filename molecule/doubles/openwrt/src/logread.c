/*
 * logread: stands for OpenWrt's logread, which prints logd's ring, follows it, writes it to a file or sends it away.
 *
 * From the sources of ubox (log/logread.c) and what was seen on a 23.05 router. On the wire:
 * "<PRI>Mon dd hh:mm:ss HOSTNAME [PREFIX: ]TEXT", over TCP with a newline (-0: a NUL) behind it, over UDP with nothing;
 * the time is local time without year and zone; each line is one send(), never more. A receiver that is gone is tried
 * again every second, what is logged meanwhile is not sent; a receiver that stops reading blocks logread (and logd
 * keeps the lines for it). The connection is told to the log, over UDP only the first one.
 * A pattern (-e) is a basic regular expression.
 *
 * When logd crashes, a logread that follows the log asks ubus for the next one at once. If ubus has not noticed the crash
 * yet, it names the former logd, and logread waits for its answer for ever: so it was seen on a router, after 4 of 20
 * crashes. Here it always waits.
 *
 * When both are stopped, logread looks for the next logd, ten times at most, and ignores SIGTERM then. So `/etc/init.d/log
 * restart` leaves the old logread alive until procd's SIGKILL 5 s later (seen on a router), and the two of them send every
 * line twice meanwhile (follows from the sources). Otherwise SIGTERM ends it.
 *
 * Differences: no facility filters on unknown names; -s (ubus socket) is ignored.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#define SYSLOG_NAMES
#include <syslog.h>

#include "standin.h"

enum { LINE_SIZE = 1024 + 128, SOURCE_KLOG = 0, TRIES = 10 };

static const char *log_file, *log_ip, *log_port, *prefix, *pid_file, *hostname;
static bool udp, follow, trailer_null, stamps, filtering, told;
static uint32_t include, exclude;
static long file_size;
static regex_t pattern;
static int sender = -1;
static time_t retry_at;
static volatile sig_atomic_t terminated;

static void on_term(int signal)
{
	(void)signal;
	terminated = 1;
}

static const char *name_of(int value, const CODE *table)
{
	for (; table->c_name; table++)
		if (table->c_val == value)
			return table->c_name;
	return "<unknown>";
}

static time_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static void connect_sender(void)
{
	struct addrinfo hints = {.ai_socktype = udp ? SOCK_DGRAM : SOCK_STREAM}, *list, *a;

	retry_at = now() + 1;
	if (getaddrinfo(log_ip, log_port, &hints, &list) == 0) {
		for (a = list; a && sender < 0; a = a->ai_next) {
			sender = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
			if (sender >= 0 && connect(sender, a->ai_addr, a->ai_addrlen)) {
				close(sender);
				sender = -1;
			}
		}
		freeaddrinfo(list);
	}
	if (sender < 0) {
		fprintf(stderr, "failed to connect: %s\n", strerror(errno));
		return;
	}
	if (!(udp && told))
		syslog(LOG_INFO, "Logread connected to %s:%s via %s\n", log_ip, log_port, udp ? "udp" : "tcp");
	told = true;
}

static void lose_sender(void)
{
	close(sender);
	sender = -1;
	retry_at = now() + 1;
}

static void send_line(unsigned int priority, int source, const char *date, const char *stamp, const char *text)
{
	char line[LINE_SIZE];
	size_t len;

	if (sender < 0)
		return;
	snprintf(line, sizeof(line) - 1, "<%u>%.16s%s%s%s%s%s%s%s", priority, date + 4, stamp, hostname ? hostname : "",
		 hostname ? " " : "", prefix ? prefix : "", prefix ? ": " : "", source == SOURCE_KLOG ? "kernel: " : "",
		 text);
	len = strlen(line);
	if (!udp)
		line[len++] = trailer_null ? 0 : '\n';
	if (send(sender, line, len, MSG_NOSIGNAL) < 0) {
		syslog(LOG_INFO, "Failed to send log data to %s:%s via %s\n", log_ip, log_port, udp ? "udp" : "tcp");
		lose_sender();
	}
}

static void write_line(unsigned int priority, int source, const char *date, const char *stamp, const char *text)
{
	static FILE *out;
	struct stat st;
	char old[4096];

	if (log_file && out && file_size && stat(log_file, &st) == 0 && st.st_size > file_size) {
		snprintf(old, sizeof(old), "%s.old", log_file);
		rename(log_file, old);
		fclose(out);
		out = NULL;
	}
	if (!out)
		out = log_file ? fopen(log_file, "a") : stdout;
	if (!out) {
		fprintf(stderr, "failed to open %s: %s\n", log_file, strerror(errno));
		exit(255);
	}
	fprintf(out, "%.24s %s%s.%s%s %s\n", date, stamp, name_of(priority & LOG_FACMASK, facilitynames),
		name_of(LOG_PRI(priority), prioritynames), source == SOURCE_KLOG ? " kernel:" : "", text);
	fflush(out);
}

static void record(char *line)
{
	unsigned int priority;
	int source, skip = 0;
	unsigned long long ms;
	char stamp[32] = "", date[32];
	const char *text;
	time_t t;

	if (sscanf(line, "%u %d %llu%n", &priority, &source, &ms, &skip) != 3)
		return;
	text = line + skip + 1;
	if (include ? !(include & 1u << LOG_FAC(priority)) : exclude & 1u << LOG_FAC(priority))
		return;
	if (filtering && regexec(&pattern, text, 0, NULL, 0))
		return;
	t = ms / 1000;
	ctime_r(&t, date);
	if (stamps)
		snprintf(stamp, sizeof(stamp), "[%llu.%03llu] ", ms / 1000, ms % 1000);
	(log_ip ? send_line : write_line)(priority, source, date, stamp, text);
}

/* Reads records until logd goes away. */
static void read_records(int logd)
{
	static char buffer[65536];
	size_t len = 0;

	time_t patience = 0;

	for (;;) {
		struct pollfd fds[2] = {{logd, POLLIN, 0}, {udp ? -1 : sender, POLLIN, 0}};
		char *newline, *line = buffer, waste[64];
		ssize_t got;

		if (log_ip && sender < 0 && now() >= retry_at)
			connect_sender();
		/* A logd that was stopped with it has gone within this time. */
		if (poll(fds, 2, terminated ? 300 : sender < 0 && log_ip ? 200 : -1) < 0)
			continue;
		if (terminated && !patience)
			patience = now() + 1;
		if (terminated && (!fds[0].revents || now() > patience))
			exit(0);
		if (fds[1].revents && recv(sender, waste, sizeof(waste), MSG_DONTWAIT) == 0)
			lose_sender();
		if (!fds[0].revents)
			continue;
		got = read(logd, buffer + len, sizeof(buffer) - len);
		if (got <= 0)
			return;
		len += got;
		while ((newline = memchr(line, '\n', len - (line - buffer)))) {
			*newline = 0;
			record(line);
			line = newline + 1;
		}
		len -= line - buffer;
		memmove(buffer, line, len);
	}
}

static void use_time_zone(void)
{
	char zone[128];
	FILE *f = fopen("/etc/TZ", "r");

	if (f && fgets(zone, sizeof(zone), f)) {
		zone[strcspn(zone, "\n")] = 0;
		setenv("TZ", zone, 0);
	}
	if (f)
		fclose(f);
}

static int usage(const char *name)
{
	fprintf(stderr, "Usage: %s [-f] [-l count] [-e pattern] [-r server port] [-F file] [-S KiB] [-p pidfile]"
		" [-h hostname] [-P prefix] [-z facility] [-Z facility] [-u] [-t] [-0]\n", name);
	return 1;
}

int main(int argc, char **argv)
{
	int opt, lines = 0, tries = TRIES, logd;

	use_time_zone();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_term);
	while ((opt = getopt(argc, argv, "u0fcs:l:z:Z:r:F:p:S:P:h:e:t")) != -1) {
		switch (opt) {
		case 'u': udp = true; break;
		case '0': trailer_null = true; break;
		case 'f': follow = true; break;
		case 't': stamps = true; break;
		case 'l': lines = atoi(optarg); break;
		case 'z': include |= 1u << (atoi(optarg) & 31); break;
		case 'Z': exclude |= 1u << (atoi(optarg) & 31); break;
		case 'F': log_file = optarg; break;
		case 'S': file_size = (atoi(optarg) > 0 ? atoi(optarg) : 1) * 1024L; break;
		case 'p': pid_file = optarg; break;
		case 'P': prefix = optarg; break;
		case 'h': hostname = optarg; break;
		case 'e': filtering = regcomp(&pattern, optarg, REG_NOSUB) == 0; break;
		case 'c': case 's': break;
		case 'r':
			log_ip = optarg;
			log_port = argv[optind] ? argv[optind++] : NULL;
			break;
		default: return usage(argv[0]);
		}
	}
	if (log_ip && !log_port)
		return usage(argv[0]);
	if (follow && pid_file) {
		FILE *f = fopen(pid_file, "w");

		if (f) {
			fprintf(f, "%d", getpid());
			fclose(f);
		}
	}
	openlog("logread", LOG_PID, LOG_DAEMON);
	retry_at = now() + 1;
	while (tries-- > 0) {
		logd = connect_to(LOGD_SOCKET);
		if (logd < 0) {
			fprintf(stderr, "Failed to find log object: Not found\n");
			sleep(1);
			continue;
		}
		dprintf(logd, "%d %d\n", lines ? lines : follow ? 0 : -1, !follow);
		read_records(logd);
		close(logd);
		if (!follow)
			return 0;
		tries = TRIES;
		while (!terminated)
			pause();
		terminated = 0;
		signal(SIGTERM, SIG_IGN);
		sleep(1);
	}
	if (follow && pid_file)
		unlink(pid_file);
	return 255;
}
