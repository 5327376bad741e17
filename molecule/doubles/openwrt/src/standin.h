/* What the stand-in's programs share: the places of their sockets and the reading of a whole request. */
#ifndef STANDIN_H
#define STANDIN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Both are ubus on a real router. */
#define UBUS_SOCKET "/var/run/ubus/ubus.sock"
#define LOGD_SOCKET "/var/run/ubus/log.sock"

/* The stand-in's own scripts: what is done before, at and after all services. */
#define STANDIN "/usr/libexec/standin"

static inline int local_socket(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	strncpy(address->sun_path, path, sizeof(address->sun_path) - 1);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static inline int listen_at(const char *path)
{
	struct sockaddr_un address;
	int fd = local_socket(path, &address);

	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 64)) {
		perror(path);
		exit(1);
	}
	return fd;
}

/* Returns -1 where nobody listens. */
static inline int connect_to(const char *path)
{
	struct sockaddr_un address;
	int fd = local_socket(path, &address);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Reads up to the end of the stream; the caller frees the text. */
static inline char *read_all(int fd)
{
	size_t len = 0, size = 4096;
	char *text = malloc(size);
	ssize_t got;

	while (text && (got = read(fd, text + len, size - len - 1)) > 0) {
		len += got;
		if (len + 1 == size)
			text = realloc(text, size *= 2);
	}
	if (!text)
		exit(1);
	text[len] = 0;
	return text;
}

#endif
