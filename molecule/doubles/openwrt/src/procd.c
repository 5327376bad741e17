/*
 * procd: stands for OpenWrt's init and service manager, as PID 1 of the container.
 *
 * From the sources of procd (service/service.c, service/instance.c; 2023-2026) and the API that procd.sh documents:
 * services with instances, started when they are set; changed ones are restarted; SIGTERM, and SIGKILL after
 * term_timeout (5 s); what was stopped is listed as running until its process is gone, and one that is set again
 * meanwhile is started only then; respawn [threshold timeout retry]: an exit within threshold seconds counts, more than retry of them in
 * a row and the instance stays down, retry <= 0 never gives up; stdout and stderr into the log; reload triggers.
 *
 * A jailed instance is run by ujail (ujail.c).
 *
 * Differences: no watchdog, no limits, seccomp or capabilities (accepted and ignored); no inittab, no
 * hotplug; `service list` with verbose shows the triggers only; one trigger run per event instead of a merged one.
 *
 * It answers on a socket of its own (see ubus.c): a line with the method, then the JSON arguments, then EOF; the
 * answer is ubus' status as a line, then JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <json-c/json.h>
#include <libgen.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "standin.h"

enum { OK = 0, INVALID_COMMAND = 1, INVALID_ARGUMENT = 2, METHOD_NOT_FOUND = 3, NOT_FOUND = 4 };

struct instance {
	struct instance *next;
	char *service, *name;
	json_object *config;		/* what the init script set */
	bool dying;			/* deleted: forgotten when its process is gone, unless it is set again */
	bool restart;			/* stopped to be started with a new config */
	bool given_up;			/* crash loop */
	pid_t pid;			/* 0: not running */
	int exit_code, crashes;
	time_t started, respawn_at, kill_at;
	int output[2];			/* what it says on stdout and stderr, -1: not wanted */
	char said[2][1024];
	size_t said_len[2];
};

struct service {
	struct service *next;
	char *name;
	bool deleted;			/* forgotten with its last instance */
	json_object *triggers, *data;
};

static struct instance *instances;
static struct service *services;
static sigset_t old_mask;
static pid_t shutting_down;

static time_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static json_object *get(json_object *o, const char *key)
{
	json_object *value = NULL;

	if (json_object_is_type(o, json_type_object))
		json_object_object_get_ex(o, key, &value);
	return value;
}

static const char *get_string(json_object *o, const char *key)
{
	json_object *value = get(o, key);

	return value ? json_object_get_string(value) : NULL;
}

static bool get_bool(json_object *o, const char *key)
{
	return json_object_get_boolean(get(o, key));
}

/* The service's part of the log: procd itself speaks as procd, an instance as its program. */
static void say(int priority, const char *format, ...)
{
	va_list args;

	openlog("procd", 0, LOG_DAEMON);
	va_start(args, format);
	vsyslog(priority, format, args);
	va_end(args);
}

static void hear(struct instance *in, int which)
{
	char *line = in->said[which], ident[64], *newline;
	size_t *len = &in->said_len[which], rest;
	const char *command = json_object_get_string(json_object_array_get_idx(get(in->config, "command"), 0));
	ssize_t got = read(in->output[which], line + *len, sizeof(in->said[which]) - 1 - *len);

	if (got <= 0) {
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		close(in->output[which]);
		in->output[which] = -1;
		return;
	}
	*len += got;
	snprintf(ident, sizeof(ident), "%s[%d]", basename((char *)command), in->pid);
	openlog(ident, 0, LOG_DAEMON);
	for (;;) {
		newline = memchr(line, '\n', *len);
		if (!newline && *len < sizeof(in->said[which]) - 1)
			break;
		rest = newline ? *len - (newline + 1 - line) : 0;
		*(newline ? newline : line + *len) = 0;
		syslog(which ? LOG_ERR : LOG_INFO, "%s", line);
		memmove(line, newline ? newline + 1 : line, rest);
		*len = rest;
	}
}

static void become(const char *user, const char *group)
{
	struct passwd *p = user ? getpwnam(user) : NULL;
	struct group *g = group ? getgrnam(group) : NULL;

	if ((user && !p) || (group && !g))
		_exit(127);
	if ((p || g) && setgid(g ? g->gr_gid : p->pw_gid))
		_exit(127);
	if (p && (initgroups(user, g ? g->gr_gid : p->pw_gid) || setuid(p->pw_uid)))
		_exit(127);
}

static void start(struct instance *in)
{
	json_object *command = get(in->config, "command");
	static const char *const streams[] = {"stdout", "stderr"};
	const char *pidfile = get_string(in->config, "pidfile");
	int pipes[2][2] = {{-1, -1}, {-1, -1}};
	size_t count = command ? json_object_array_length(command) : 0;
	json_object *jail = get(in->config, "jail");

	in->respawn_at = in->kill_at = 0;
	in->restart = false;
	if (!count || get(in->config, "error")) {
		say(LOG_INFO, "Not starting instance %s::%s, %s", in->service, in->name,
		    count ? "an error was indicated" : "command not set");
		return;
	}
	for (int i = 0; i < 2; i++)
		if (in->output[i] < 0 && get_bool(in->config, streams[i]) && pipe2(pipes[i], O_CLOEXEC) == 0)
			in->output[i] = pipes[i][0];
	in->started = now();
	in->pid = fork();
	if (in->pid == 0) {
		char *argv[count + 6], **word = argv;
		int null = open("/dev/null", O_RDWR);

		setsid();
		sigprocmask(SIG_SETMASK, &old_mask, NULL);
		dup2(null, 0);
		for (int i = 0; i < 2; i++)
			dup2(pipes[i][1] >= 0 ? pipes[i][1] : null, i + 1);
		if (get(in->config, "env")) {
			json_object_object_foreach(get(in->config, "env"), key, value)
				setenv(key, json_object_get_string(value), 1);
		}
		if (jail) {
			*word++ = "/sbin/ujail";
			*word++ = "-n";
			*word++ = (char *)get_string(jail, "name");
			if (get_bool(jail, "log"))
				*word++ = "-l";
			*word++ = "--";
		}
		for (size_t i = 0; i < count; i++)
			*word++ = (char *)json_object_get_string(json_object_array_get_idx(command, i));
		*word = NULL;
		become(get_string(in->config, "user"), get_string(in->config, "group"));
		execvp(argv[0], argv);
		_exit(127);
	}
	for (int i = 0; i < 2; i++)
		if (pipes[i][1] >= 0)
			close(pipes[i][1]);
	if (pidfile) {
		FILE *f = fopen(pidfile, "w");

		if (f) {
			fprintf(f, "%d\n", in->pid);
			fclose(f);
		}
	}
}

static void terminate(struct instance *in)
{
	json_object *patience = get(in->config, "term_timeout");

	kill(in->pid, SIGTERM);
	in->kill_at = now() + (patience ? json_object_get_int(patience) : 5);
}

static void forget_service(const char *name)
{
	struct service **p, *s;
	struct instance *in;

	for (in = instances; in; in = in->next)
		if (!strcmp(in->service, name))
			return;
	for (p = &services; (s = *p); p = &s->next)
		if (s->deleted && !strcmp(s->name, name)) {
			*p = s->next;
			json_object_put(s->triggers);
			json_object_put(s->data);
			free(s->name);
			free(s);
			return;
		}
}

static void forget(struct instance *in)
{
	struct instance **p;
	char *service = in->service;

	for (p = &instances; *p != in; p = &(*p)->next)
		;
	*p = in->next;
	for (int i = 0; i < 2; i++)
		if (in->output[i] >= 0)
			close(in->output[i]);
	json_object_put(in->config);
	free(in->name);
	free(in);
	forget_service(service);
	free(service);
}

static void stop(struct instance *in)
{
	in->dying = true;
	in->restart = false;
	in->respawn_at = 0;
	if (in->pid)
		terminate(in);
	else
		forget(in);
}

static void exited(struct instance *in, int status)
{
	json_object *respawn = get(in->config, "respawn");
	const char *pidfile = get_string(in->config, "pidfile");
	time_t ran = now() - in->started;
	int threshold, timeout, retry;

	for (int i = 0; i < 2; i++)
		if (in->output[i] >= 0)
			hear(in, i);
	in->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	in->pid = 0;
	in->kill_at = 0;
	if (pidfile)
		unlink(pidfile);
	if (in->dying) {
		forget(in);
		return;
	}
	if (in->restart) {
		start(in);
		return;
	}
	if (!respawn)
		return;
	threshold = json_object_get_int(json_object_array_get_idx(respawn, 0));
	timeout = json_object_get_int(json_object_array_get_idx(respawn, 1));
	retry = json_object_get_int(json_object_array_get_idx(respawn, 2));
	in->crashes = ran < threshold ? in->crashes + 1 : 0;
	if (in->crashes > retry && retry > 0) {
		in->given_up = true;
		say(LOG_INFO, "Instance %s::%s s in a crash loop %d crashes, %ld seconds since last crash", in->service,
		    in->name, in->crashes, (long)ran);
		return;
	}
	in->respawn_at = now() + timeout;
}

static struct instance *find_instance(const char *service, const char *name)
{
	struct instance *in;

	for (in = instances; in; in = in->next)
		if (!strcmp(in->service, service) && (!name || !strcmp(in->name, name)))
			return in;
	return NULL;
}

static struct service *find_service(const char *name)
{
	struct service *s;

	for (s = services; s; s = s->next)
		if (name && !strcmp(s->name, name))
			return s;
	return NULL;
}

/* What tells procd that a file named by procd_set_param file has changed. */
static void add_file_state(json_object *config)
{
	json_object *files = get(config, "file"), *state = json_object_new_array();
	struct stat st;

	for (size_t i = 0; files && i < json_object_array_length(files); i++) {
		FILE *f = fopen(json_object_get_string(json_object_array_get_idx(files, i)), "r");
		uint32_t hash = 2166136261u;
		int c;

		while (f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && (c = getc(f)) != EOF)
			hash = (hash ^ (uint32_t)c) * 16777619u;
		if (f)
			fclose(f);
		json_object_array_add(state, json_object_new_int64(hash));
	}
	json_object_object_add(config, ".file_state", state);
}

static void set_instance(const char *service, const char *name, json_object *config)
{
	struct instance *in = find_instance(service, name), **end;
	bool changed = !in || !json_object_equal(in->config, config);

	if (!in) {
		in = calloc(1, sizeof(*in));
		in->service = strdup(service);
		in->name = strdup(name);
		in->output[0] = in->output[1] = -1;
		for (end = &instances; *end; end = &(*end)->next)
			;
		*end = in;
	}
	if (in->config)
		json_object_put(in->config);
	in->config = config;
	if (!in->pid) {
		in->crashes = 0;
		in->given_up = false;
		start(in);
	} else if (in->dying) {
		in->dying = false;
		in->restart = true;
	} else if (changed) {
		json_object *reload = get(config, "reload_signal");

		if (reload) {
			kill(in->pid, json_object_get_int(reload));
		} else {
			in->restart = true;
			terminate(in);
		}
	}
}

static int service_set(json_object *args, bool add)
{
	const char *name = get_string(args, "name");
	json_object *wanted = get(args, "instances");
	struct service *s = find_service(name);
	struct instance *in, *next;

	if (!name)
		return INVALID_ARGUMENT;
	if (!s) {
		struct service **end;

		s = calloc(1, sizeof(*s));
		s->name = strdup(name);
		for (end = &services; *end; end = &(*end)->next)
			;
		*end = s;
	}
	s->deleted = false;
	json_object_put(s->triggers);
	json_object_put(s->data);
	s->triggers = json_object_get(get(args, "triggers"));
	s->data = json_object_get(get(args, "data"));
	if (!add)
		for (in = instances; in; in = next) {
			next = in->next;
			if (!in->dying && !strcmp(in->service, name) && !get(wanted, in->name))
				stop(in);
		}
	if (wanted) {
		json_object_object_foreach(wanted, key, config) {
			add_file_state(config);
			set_instance(name, key, json_object_get(config));
		}
	}
	return OK;
}

static int service_delete(json_object *args)
{
	const char *name = get_string(args, "name"), *instance = get_string(args, "instance");
	struct instance *in, *next;
	struct service *s = find_service(name);

	if (!s || (instance && !find_instance(name, instance)))
		return NOT_FOUND;
	for (in = instances; in; in = next) {
		next = in->next;
		if (!in->dying && !strcmp(in->service, name) && (!instance || !strcmp(in->name, instance)))
			stop(in);
	}
	if (!instance) {
		s->deleted = true;
		forget_service(name);
	}
	return OK;
}

static int service_signal(json_object *args)
{
	const char *name = get_string(args, "name"), *instance = get_string(args, "instance");
	json_object *signal = get(args, "signal");
	struct instance *in;

	if (!find_service(name) || (instance && !find_instance(name, instance)))
		return NOT_FOUND;
	for (in = instances; in; in = in->next)
		if (in->pid && !strcmp(in->service, name) && (!instance || !strcmp(in->name, instance)))
			kill(in->pid, signal ? json_object_get_int(signal) : SIGHUP);
	return OK;
}

static void copy(json_object *to, json_object *from, const char *key)
{
	json_object *value = get(from, key);

	if (value)
		json_object_object_add(to, key, json_object_get(value));
}

static json_object *describe(struct instance *in)
{
	json_object *o = json_object_new_object(), *respawn = get(in->config, "respawn"), *r;
	json_object *patience = get(in->config, "term_timeout");
	static const char *const names[] = {"threshold", "timeout", "retry"};

	json_object_object_add(o, "running", json_object_new_boolean(in->pid != 0));
	if (in->pid)
		json_object_object_add(o, "pid", json_object_new_int(in->pid));
	copy(o, in->config, "command");
	json_object_object_add(o, "term_timeout", patience ? json_object_get(patience) : json_object_new_int(5));
	if (!in->pid)
		json_object_object_add(o, "exit_code", json_object_new_int(in->exit_code));
	copy(o, in->config, "env");
	copy(o, in->config, "data");
	copy(o, in->config, "netdev");
	copy(o, in->config, "reload_signal");
	if (respawn && !in->given_up) {
		r = json_object_new_object();
		for (size_t i = 0; i < 3; i++)
			json_object_object_add(r, names[i],
				json_object_new_int(json_object_get_int(json_object_array_get_idx(respawn, i))));
		json_object_object_add(o, "respawn", r);
	}
	copy(o, in->config, "pidfile");
	copy(o, in->config, "jail");
	copy(o, in->config, "user");
	copy(o, in->config, "group");
	return o;
}

static json_object *service_list(json_object *args)
{
	const char *name = get_string(args, "name");
	json_object *all = json_object_new_object();
	struct service *s;
	struct instance *in;

	for (s = services; s; s = s->next) {
		json_object *o, *list = NULL;

		if (name && strcmp(s->name, name))
			continue;
		o = json_object_new_object();
		if (s->data && json_object_object_length(s->data))
			json_object_object_add(o, "data", json_object_get(s->data));
		for (in = instances; in; in = in->next) {
			if (strcmp(in->service, s->name))
				continue;
			if (!list)
				list = json_object_new_object();
			json_object_object_add(list, in->name, describe(in));
		}
		if (list)
			json_object_object_add(o, "instances", list);
		if (get_bool(args, "verbose") && s->triggers)
			json_object_object_add(o, "triggers", json_object_get(s->triggers));
		json_object_object_add(all, s->name, o);
	}
	return all;
}

static bool holds(json_object *condition, json_object *data)
{
	const char *kind = json_object_get_string(json_object_array_get_idx(condition, 0));

	if (!strcmp(kind, "eq")) {
		const char *key = json_object_get_string(json_object_array_get_idx(condition, 1));
		const char *wanted = json_object_get_string(json_object_array_get_idx(condition, 2));
		const char *value = get_string(data, key);

		return value && !strcmp(value, wanted);
	}
	for (size_t i = 1; !strcmp(kind, "or") && i < json_object_array_length(condition); i++)
		if (holds(json_object_array_get_idx(condition, i), data))
			return true;
	return false;
}

/* A rule is ["run_script", COMMAND…], ["if", CONDITION, RULE], or a list of rules. */
static void follow(json_object *rule, json_object *data)
{
	json_object *first = json_object_array_get_idx(rule, 0);
	size_t count = json_object_array_length(rule);
	const char *kind;

	if (json_object_is_type(first, json_type_array)) {
		for (size_t i = 0; i < count; i++)
			follow(json_object_array_get_idx(rule, i), data);
		return;
	}
	kind = json_object_get_string(first);
	if (kind && !strcmp(kind, "if") && holds(json_object_array_get_idx(rule, 1), data))
		follow(json_object_array_get_idx(rule, 2), data);
	if (kind && !strcmp(kind, "run_script") && fork() == 0) {
		char *argv[count];

		sigprocmask(SIG_SETMASK, &old_mask, NULL);
		sleep(1);
		for (size_t i = 1; i < count; i++)
			argv[i - 1] = (char *)json_object_get_string(json_object_array_get_idx(rule, i));
		argv[count - 1] = NULL;
		execv(argv[0], argv);
		_exit(127);
	}
}

static int service_event(json_object *args)
{
	const char *type = get_string(args, "type");
	struct service *s;

	if (!type)
		return INVALID_ARGUMENT;
	for (s = services; s; s = s->next)
		for (size_t i = 0; s->triggers && i < json_object_array_length(s->triggers); i++) {
			json_object *trigger = json_object_array_get_idx(s->triggers, i);
			const char *pattern = json_object_get_string(json_object_array_get_idx(trigger, 0));

			if (pattern && !fnmatch(pattern, type, 0))
				follow(json_object_array_get_idx(trigger, 1), get(args, "data"));
		}
	return OK;
}

static int service_state(json_object *args)
{
	const char *name = get_string(args, "name");
	struct instance *in;

	if (!get(args, "spawn"))
		return INVALID_ARGUMENT;
	if (!find_service(name))
		return NOT_FOUND;
	for (in = instances; in; in = in->next) {
		if (in->dying || strcmp(in->service, name) || (in->pid != 0) == get_bool(args, "spawn"))
			continue;
		if (in->pid)
			terminate(in);
		else
			start(in);
	}
	return OK;
}

static void answer(int client)
{
	char *request = read_all(client), *body = strchr(request, '\n');
	json_object *args, *reply = NULL;
	int status = OK;

	if (!body) {
		free(request);
		return;
	}
	*body++ = 0;
	args = *body ? json_tokener_parse(body) : json_object_new_object();
	if (!json_object_is_type(args, json_type_object))
		status = INVALID_ARGUMENT;
	else if (!strcmp(request, "list"))
		reply = service_list(args);
	else if (!strcmp(request, "set") || !strcmp(request, "add"))
		status = service_set(args, request[0] == 'a');
	else if (!strcmp(request, "delete"))
		status = service_delete(args);
	else if (!strcmp(request, "signal"))
		status = service_signal(args);
	else if (!strcmp(request, "event"))
		status = service_event(args);
	else if (!strcmp(request, "state"))
		status = service_state(args);
	else
		status = METHOD_NOT_FOUND;
	dprintf(client, "%d\n%s", status, reply ? json_object_to_json_string(reply) : "");
	json_object_put(args);
	json_object_put(reply);
	free(request);
}

static pid_t run(char *const argv[])
{
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		sigprocmask(SIG_SETMASK, &old_mask, NULL);
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static void reap(void)
{
	struct instance *in;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == shutting_down) {
			for (in = instances; in; in = in->next)
				if (in->pid)
					kill(in->pid, SIGKILL);
			exit(0);
		}
		for (in = instances; in && in->pid != pid; in = in->next)
			;
		if (in)
			exited(in, status);
	}
}

static void clock_work(void)
{
	struct instance *in;

	for (in = instances; in; in = in->next) {
		if (in->kill_at && now() >= in->kill_at && in->pid) {
			say(LOG_INFO, "Instance %s::%s pid %d not stopped on SIGTERM, sending SIGKILL instead", in->service,
			    in->name, in->pid);
			in->kill_at = 0;
			kill(in->pid, SIGKILL);
		}
		if (in->respawn_at && now() >= in->respawn_at && !in->pid)
			start(in);
	}
}

int main(void)
{
	sigset_t mask;
	int server, signals;
	struct signalfd_siginfo info;

	if (getpid() != 1) {
		fprintf(stderr, "procd: this is the container's init\n");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_BLOCK, &mask, &old_mask);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (system(STANDIN "/preinit") != 0)
		fprintf(stderr, "procd: /etc/preinit failed\n");
	server = listen_at(UBUS_SOCKET);
	run((char *[]){STANDIN "/boot", NULL});

	for (;;) {
		struct instance *in, *of[256];
		struct pollfd fds[256] = {{signals, POLLIN, 0}, {server, POLLIN, 0}};
		int which[256];
		nfds_t n = 2;

		for (in = instances; in; in = in->next)
			for (int i = 0; i < 2 && n < 256; i++)
				if (in->output[i] >= 0) {
					of[n] = in;
					which[n] = i;
					fds[n++] = (struct pollfd){in->output[i], POLLIN, 0};
				}
		poll(fds, n, 500);
		for (nfds_t i = 2; i < n; i++)
			if (fds[i].revents)
				hear(of[i], which[i]);
		if (fds[1].revents) {
			int client = accept4(server, NULL, NULL, SOCK_CLOEXEC);

			if (client >= 0) {
				answer(client);
				close(client);
			}
		}
		while (read(signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo == SIGCHLD)
				reap();
			else if (!shutting_down)
				shutting_down = run((char *[]){STANDIN "/shutdown", NULL});
		}
		clock_work();
	}
}
