/*
 * ubus: stands for OpenWrt's ubus command, `ubus [-S] [-t n] call OBJECT METHOD [JSON]` and `ubus list [PATTERN]`.
 *
 * From the sources of ubus (cli.c) and libubus: JSON in tabs, -S on one line, exit status 4 and "Command failed:
 * Not found" for an unknown object, 3 for an unknown method, 2 for bad arguments, 255 without ubusd.
 *
 * The object `service` is procd (procd.c). Every other object is a program /usr/libexec/ubus/OBJECT, called with
 * the method and the arguments, which prints JSON and whose exit status is ubus' status.
 * Differences: network.interface.NAME is not listed; no listen, subscribe, send, monitor and wait_for; list -v shows no methods; no access control.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fnmatch.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "standin.h"

#define OBJECTS "/usr/libexec/ubus"

static const char *const statuses[] = {
	"Success", "Invalid command", "Invalid argument", "Method not found", "Not found", "No response",
	"Permission denied", "Request timed out", "Operation not supported", "Unknown error", "Connection failed",
};

static int fail(int status)
{
	int known = sizeof(statuses) / sizeof(*statuses);

	fprintf(stderr, "Command failed: %s\n", status < known ? statuses[status] : statuses[9]);
	return status;
}

static int list(const char *pattern)
{
	struct dirent **entries;
	int n = scandir(OBJECTS, &entries, NULL, alphasort), status = pattern ? 4 : 0;

	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name[0] == '.' ? NULL : entries[i]->d_name;

		if (name && (!pattern || !fnmatch(pattern, name, 0))) {
			puts(name);
			status = 0;
		}
	}
	return status ? fail(status) : 0;
}

static char *ask_procd(const char *method, const char *args)
{
	int fd = connect_to(UBUS_SOCKET);

	if (fd < 0) {
		fprintf(stderr, "Failed to connect to ubus\n");
		exit(255);
	}
	dprintf(fd, "%s\n%s", method, args);
	shutdown(fd, SHUT_WR);
	return read_all(fd);
}

/* network.interface.lan METHOD is network.interface METHOD with the name as an argument. */
static const char *resolve(const char *object, const char **args)
{
	static const char family[] = "network.interface";
	static char named[256];

	if (strncmp(object, family, strlen(family)) || object[strlen(family)] != '.')
		return object;
	snprintf(named, sizeof(named), "{\"interface\":\"%s\"}", object + strlen(family) + 1);
	*args = named;
	return family;
}

/* Runs OBJECTS/object; returns its status and what it printed in the form of procd's answer. */
static char *ask_program(const char *object, const char *method, const char *args)
{
	char *path, *text, *reply;
	int fds[2], status;
	pid_t pid;

	object = resolve(object, &args);
	if (asprintf(&path, OBJECTS "/%s", object) < 0 || strchr(object, '/') || access(path, X_OK) || pipe(fds))
		exit(fail(4));
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], 1);
		close(fds[0]);
		close(fds[1]);
		execl(path, path, method, args, NULL);
		_exit(9);
	}
	close(fds[1]);
	text = read_all(fds[0]);
	waitpid(pid, &status, 0);
	if (asprintf(&reply, "%d\n%s", WIFEXITED(status) ? WEXITSTATUS(status) : 9, text) < 0)
		exit(9);
	return reply;
}

int main(int argc, char **argv)
{
	int flags = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_PRETTY_TAB | JSON_C_TO_STRING_SPACED, opt, status;
	char *reply, *body;
	const char *args;
	json_object *json;

	while ((opt = getopt(argc, argv, "+St:s:v")) != -1) {
		if (opt == 'S')
			flags = JSON_C_TO_STRING_PLAIN;
		if (opt == '?')
			return 2;
	}
	argv += optind;
	argc -= optind;
	if (argc >= 1 && !strcmp(argv[0], "list"))
		return list(argc > 1 ? argv[1] : NULL);
	if (argc < 3 || argc > 4 || strcmp(argv[0], "call")) {
		fprintf(stderr, "Usage: ubus [<options>] <command> [arguments...]\n");
		return 2;
	}
	args = argc > 3 ? argv[3] : "{}";
	json = json_tokener_parse(args);
	if (!json_object_is_type(json, json_type_object)) {
		fprintf(stderr, "Failed to parse message data\n");
		return 255;
	}
	reply = !strcmp(argv[1], "service") ? ask_procd(argv[2], args) : ask_program(argv[1], argv[2], args);
	status = atoi(reply);
	body = strchr(reply, '\n');
	if (status)
		return fail(status);
	json = body && body[1] ? json_tokener_parse(body + 1) : NULL;
	if (json)
		puts(json_object_to_json_string_ext(json, flags | JSON_C_TO_STRING_NOSLASHESCAPE));
	return 0;
}
