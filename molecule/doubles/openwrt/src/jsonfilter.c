/*
 * jsonfilter: stands for OpenWrt's jsonfilter (jsonpath), `jsonfilter [-q] [-s JSON] [-l N] -e EXPR…`.
 *
 * From its README and usage: @ or $, then .key .* ["key"] ['key'] [n] [*] and the filter [@.key='text'] (also true,
 * false and numbers); strings and numbers bare, objects and arrays as JSON, one match a line; 1 where nothing matches,
 * 126 for bad JSON.
 *
 * Differences: only what the roles and the stand-in use. No -a, -i, -t, -F and VAR=EXPR; filters compare one key with
 * `=`, and have no && or ||.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <json-c/json.h>
#include <stdbool.h>

#include "standin.h"

static int limit, matches;

static void bad(const char *at)
{
	fprintf(stderr, "Syntax error: near '%s'\n", at);
	exit(127);
}

static void print(json_object *o)
{
	bool whole = json_object_is_type(o, json_type_array) || json_object_is_type(o, json_type_object);
	const char *text = whole ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)
				 : json_object_get_string(o);

	if (limit && matches >= limit)
		return;
	matches++;
	puts(text ? text : "null");
}

/* Reads a quoted or bare word of an expression into `word`; returns what follows. */
static const char *read_word(const char *p, char *word, size_t size)
{
	char quote = *p == '\'' || *p == '"' ? *p++ : 0;
	size_t n = 0;

	while (*p && (quote ? *p != quote : isalnum((unsigned char)*p) || strchr("_-.", *p))) {
		if (quote && *p == '\\' && p[1])
			p++;
		if (n + 1 < size)
			word[n++] = *p;
		p++;
	}
	word[n] = 0;
	if (quote && *p++ != quote)
		bad(p - 1);
	return p;
}

static const char *skip_blanks(const char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

/* Evaluates "@.key=value" of a filter; returns what follows. */
static const char *condition(json_object *o, const char *p, bool *result)
{
	char word[256];
	size_t n = 0;

	if (strncmp(p, "@.", 2))
		bad(p);
	p += 2;
	while ((isalnum((unsigned char)*p) || *p == '_') && n + 1 < sizeof(word))
		word[n++] = *p++;
	word[n] = 0;
	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, word, &o))
		o = NULL;
	if (*p != '=')
		bad(p);
	p = read_word(p + 1, word, sizeof(word));
	*result = o && !strcmp(json_object_get_string(o), word);
	return p;
}

static void walk(json_object *o, const char *path);

static void each(json_object *o, const char *filter, const char *rest)
{
	bool chosen = true;

	if (json_object_is_type(o, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(o); i++) {
			json_object *item = json_object_array_get_idx(o, i);

			if (filter)
				condition(item, filter, &chosen);
			if (chosen)
				walk(item, rest);
		}
	} else if (json_object_is_type(o, json_type_object)) {
		json_object_object_foreach(o, key, item) {
			(void)key;
			if (filter)
				condition(item, filter, &chosen);
			if (chosen)
				walk(item, rest);
		}
	}
}

static void walk_key(json_object *o, const char *key, const char *rest)
{
	json_object *value;

	if (json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &value))
		walk(value, rest);
}

static void walk(json_object *o, const char *path)
{
	char word[256];
	const char *filter;
	bool ignored;
	size_t n = 0;

	if (!*path) {
		print(o);
		return;
	}
	if (*path == '.') {
		path++;
		if (*path == '*') {
			each(o, NULL, path + 1);
			return;
		}
		while ((isalnum((unsigned char)*path) || *path == '_') && n + 1 < sizeof(word))
			word[n++] = *path++;
		word[n] = 0;
		if (!n)
			bad(path);
		walk_key(o, word, path);
		return;
	}
	if (*path != '[')
		bad(path);
	path = skip_blanks(path + 1);
	if (*path == '*') {
		path = skip_blanks(path + 1);
		if (*path != ']')
			bad(path);
		each(o, NULL, path + 1);
	} else if (*path == '@') {
		filter = path;
		path = condition(NULL, path, &ignored);
		if (*path != ']')
			bad(path);
		each(o, filter, path + 1);
	} else {
		bool quoted = *path == '\'' || *path == '"';

		path = skip_blanks(read_word(path, word, sizeof(word)));
		if (*path != ']')
			bad(path);
		if (quoted) {
			walk_key(o, word, path + 1);
		} else if (json_object_is_type(o, json_type_array)) {
			int i = atoi(word), length = json_object_array_length(o);

			i = i < 0 ? i + length : i;
			if (i >= 0 && i < length)
				walk(json_object_array_get_idx(o, i), path + 1);
		}
	}
}

static bool evaluate(json_object *o, const char *expression)
{
	matches = 0;
	if (*expression != '@' && *expression != '$')
		bad(expression);
	walk(o, expression + 1);
	return matches > 0;
}

int main(int argc, char **argv)
{
	const char *options = "qs:l:e:", *text = NULL;
	int opt;
	bool quiet = false, asked = false, any = false;
	json_object *o;

	while ((opt = getopt(argc, argv, options)) != -1) {
		switch (opt) {
		case 's': text = optarg; break;
		case 'l': limit = atoi(optarg); break;
		case 'q': quiet = true; break;
		case 'e': asked = true; break;
		default:
			fprintf(stderr, "Usage: %s [-q] [-s json] [-l limit] -e pattern...\n", argv[0]);
			return 1;
		}
	}
	if (!asked)
		return 1;
	o = json_tokener_parse(text ? text : read_all(0));
	if (!o) {
		if (!quiet)
			fprintf(stderr, "Failed to parse json data: unexpected end of data\n");
		return 126;
	}
	optind = 1;
	while ((opt = getopt(argc, argv, options)) != -1)
		if (opt == 'e')
			any |= evaluate(o, optarg);
	return any ? 0 : 1;
}
