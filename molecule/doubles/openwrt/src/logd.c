/*
 * logd: stands for OpenWrt's logd, `logd -S KIB`: the ring buffer behind /dev/log, which `logread` reads.
 *
 * From the sources of ubox (log/logd.c, log/syslog.c): a line is at most 1023 bytes, its newlines become spaces,
 * priority and the sender's time are cut off, LOCAL7 is dropped, times are logd's own; what a reader does not take is
 * kept for it without limit; the ring is lost with the process. Newlines and blanks at the end go: so it was seen on a
 * 23.05 router.
 *
 * Readers connect to a socket (ubus' `log read` on a router) and send "LINES ONESHOT\n", LINES -1 for all; each
 * record is sent as "PRIORITY SOURCE MILLISECONDS TEXT\n". Differences: no kernel messages (a container's would be
 * the host's), no `log write` (ubus' object `log` is a script), runs as root. The ring counts each line with 24 bytes.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>

#include "standin.h"

enum { LINE_SIZE = 1024, TIME_SIZE = 16, HEAD_SIZE = 24, MAX_READERS = 64 };

struct line {
	struct line *next;
	size_t size;
	char text[];
};

struct reader {
	int fd;
	bool asked, oneshot;
	char *queue;
	size_t len, room;
};

static struct line *oldest, **newest = &oldest;
static size_t ring_used, ring_size = 16 * 1024;
static unsigned int ring_count;
static struct reader readers[MAX_READERS];
static int reader_count;

static void enqueue(struct reader *r, const struct line *l)
{
	if (r->len + l->size > r->room)
		r->queue = realloc(r->queue, r->room = 2 * (r->len + l->size));
	if (!r->queue)
		exit(1);
	memcpy(r->queue + r->len, l->text, l->size);
	r->len += l->size;
}

static void add(char *text, size_t len)
{
	unsigned int priority = 0;
	char *end;
	struct timespec t;
	struct line *l;

	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	for (size_t i = 0; i < len; i++)
		if (text[i] == '\n')
			text[i] = ' ';
	text[len] = 0;
	if (text[0] == '<' && isdigit((unsigned char)text[1])) {
		priority = strtoul(text + 1, &end, 10);
		if (*end == '>') {
			len -= end + 1 - text;
			text = end + 1;
		}
	}
	if (len > TIME_SIZE && text[TIME_SIZE - 1] == ' ') {
		text += TIME_SIZE;
		len -= TIME_SIZE;
	}
	if ((priority & LOG_FACMASK) == LOG_LOCAL7)
		return;
	clock_gettime(CLOCK_REALTIME, &t);
	l = malloc(sizeof(*l) + LINE_SIZE + 64);
	if (!l)
		exit(1);
	l->next = NULL;
	l->size = sprintf(l->text, "%u 1 %llu %s\n", priority,
			  (unsigned long long)t.tv_sec * 1000 + t.tv_nsec / 1000000, text);
	l = realloc(l, sizeof(*l) + l->size);
	*newest = l;
	newest = &l->next;
	ring_used += l->size + HEAD_SIZE;
	ring_count++;
	for (int i = 0; i < reader_count; i++)
		if (readers[i].asked && !readers[i].oneshot)
			enqueue(&readers[i], l);
	while (ring_used > ring_size && oldest != l) {
		struct line *gone = oldest;

		oldest = gone->next;
		ring_used -= gone->size + HEAD_SIZE;
		ring_count--;
		free(gone);
	}
}

/* Returns false when the reader is gone or has got all that it asked for. */
static bool serve(struct reader *r, short events)
{
	char request[64];
	int lines, oneshot;
	unsigned int skip = 0;
	ssize_t n;

	if (events & (POLLIN | POLLHUP | POLLERR)) {
		n = read(r->fd, request, sizeof(request) - 1);
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		request[n] = 0;
		if (r->asked || sscanf(request, "%d %d", &lines, &oneshot) != 2)
			return false;
		r->asked = true;
		r->oneshot = oneshot;
		if (lines >= 0 && ring_count > (unsigned int)lines)
			skip = ring_count - lines;
		for (struct line *l = oldest; l; l = l->next)
			if (skip)
				skip--;
			else
				enqueue(r, l);
	}
	if (r->len) {
		n = send(r->fd, r->queue, r->len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		memmove(r->queue, r->queue + n, r->len -= n);
	}
	return !(r->asked && r->oneshot && !r->len);
}

int main(int argc, char **argv)
{
	int opt, syslog_fd, server;
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	static char buffer[LINE_SIZE];

	while ((opt = getopt(argc, argv, "S:")) != -1)
		if (opt == 'S' && atoi(optarg) > 0)
			ring_size = atoi(optarg) * 1024UL;
	unlink(address.sun_path);
	syslog_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(syslog_fd, (struct sockaddr *)&address, sizeof(address))) {
		perror(address.sun_path);
		return 1;
	}
	chmod(address.sun_path, 0666);
	server = listen_at(LOGD_SOCKET);

	for (;;) {
		struct pollfd fds[MAX_READERS + 2] = {{syslog_fd, POLLIN, 0}, {server, POLLIN, 0}};
		int n = reader_count;
		ssize_t got;

		for (int i = 0; i < n; i++)
			fds[i + 2] = (struct pollfd){readers[i].fd, readers[i].len ? POLLIN | POLLOUT : POLLIN, 0};
		poll(fds, n + 2, -1);
		if (fds[0].revents)
			while ((got = recv(syslog_fd, buffer, LINE_SIZE - 1, 0)) > 0) {
				buffer[got] = 0;
				add(buffer, strlen(buffer));
			}
		for (int i = n - 1; i >= 0; i--)
			if (!serve(&readers[i], fds[i + 2].revents)) {
				close(readers[i].fd);
				free(readers[i].queue);
				readers[i] = readers[--reader_count];
			}
		if (fds[1].revents && reader_count < MAX_READERS) {
			int fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

			if (fd >= 0)
				readers[reader_count++] = (struct reader){.fd = fd};
		}
	}
}
