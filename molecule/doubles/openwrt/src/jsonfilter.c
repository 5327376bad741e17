/*
 * jsonfilter: stands for OpenWrt's jsonfilter (jsonpath), `jsonfilter [-q] [-a] [-s JSON | -i FILE] [-l N] [-F SEP] -e EXPR…`.
 *
 * From its README and usage: @ or $, then .key .* ["key"] ['key'] [n] [*] and the filter [@.key='text'] (also
 * != < <= > >=, numbers and true/false, joined by && or ||); VAR=EXPR prints `export VAR='value'; `, -t prints types;
 * strings and numbers bare, objects and arrays as JSON, one match a line; 1 where nothing matches, 126 for bad JSON.
 *
 * Differences: no `..`, no ranges, unions or regular expressions, no labels ($) inside filters, no parentheses.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdbool.h>

#include "standin.h"

static const char *separator = " ", *variable;
static bool types, any;
static int limit, matches;

static void bad(const char *at)
{
	fprintf(stderr, "Syntax error: near '%s'\n", at);
	exit(127);
}

static void print(json_object *o)
{
	const char *text = types ? json_type_to_name(json_object_get_type(o)) : json_object_get_string(o);

	if (json_object_is_type(o, json_type_array) || json_object_is_type(o, json_type_object))
		text = types ? text : json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (limit && matches >= limit)
		return;
	if (variable && matches++ == 0)
		printf("export %s=", variable);
	else if (variable)
		printf("\\%s", separator);
	else
		matches++;
	if (!variable) {
		puts(text ? text : "null");
		return;
	}
	putchar('\'');
	for (; text && *text; text++)
		*text == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*text);
	putchar('\'');
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

/* Evaluates "@.key OP value", or "@.key", which is true where there is such a key. */
static const char *compare(json_object *o, const char *p, bool *result)
{
	char word[256], op[3] = "";
	int difference;

	if (*p++ != '@')
		bad(p - 1);
	while (*p == '.' || *p == '[') {
		bool bracket = *p++ == '[';
		size_t n = 0;

		if (bracket) {
			p = read_word(p, word, sizeof(word));
			if (*p++ != ']')
				bad(p - 1);
		} else {
			while (*p && (isalnum((unsigned char)*p) || *p == '_' || *p == '-') && n + 1 < sizeof(word))
				word[n++] = *p++;
			word[n] = 0;
		}
		if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, word, &o))
			o = NULL;
	}
	p = skip_blanks(p);
	if (!strchr("=!<>", *p) || !*p) {
		*result = o != NULL;
		return p;
	}
	op[0] = *p++;
	if (*p == '=')
		op[1] = *p++;
	p = read_word(skip_blanks(p), word, sizeof(word));
	if (!o) {
		*result = op[0] == '!';
		return p;
	}
	if (json_object_is_type(o, json_type_int) || json_object_is_type(o, json_type_double)) {
		double d = json_object_get_double(o) - atof(word);

		difference = (d > 0) - (d < 0);
	} else {
		difference = strcmp(json_object_get_string(o), word);
	}
	switch (op[0]) {
	case '=': *result = difference == 0; break;
	case '!': *result = difference != 0; break;
	case '<': *result = difference < 0 || (op[1] && difference == 0); break;
	default: *result = difference > 0 || (op[1] && difference == 0);
	}
	return p;
}

static const char *condition(json_object *o, const char *p, bool *result)
{
	bool next;

	p = skip_blanks(compare(o, skip_blanks(p), result));
	while (!strncmp(p, "&&", 2) || !strncmp(p, "||", 2)) {
		bool both = *p == '&';

		p = skip_blanks(compare(o, skip_blanks(p + 2), &next));
		*result = both ? *result && next : *result || next;
	}
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

static bool evaluate(json_object *o, char *expression, bool type)
{
	char *equals = strchr(expression, '=');

	variable = NULL;
	types = type;
	matches = 0;
	if (equals && expression[0] != '@' && expression[0] != '$') {
		*equals = 0;
		variable = expression;
		expression = equals + 1;
	}
	if (*expression != '@' && *expression != '$')
		bad(expression);
	walk(o, expression + 1);
	if (variable && matches)
		printf("; ");
	return matches > 0;
}

int main(int argc, char **argv)
{
	const char *options = "hqas:i:l:F:e:t:", *text = NULL, *file = NULL;
	int opt, fd = 0;
	bool quiet = false, asked = false;
	json_object *o;

	while ((opt = getopt(argc, argv, options)) != -1) {
		switch (opt) {
		case 's': text = optarg; break;
		case 'i': file = optarg; break;
		case 'l': limit = atoi(optarg); break;
		case 'F': separator = optarg; break;
		case 'q': quiet = true; break;
		case 'e': case 't': asked = true; break;
		case 'a': break;
		default:
			fprintf(stderr, "Usage: %s [-q] [-s json | -i file] [-l limit] [-F separator] {-t|-e} pattern...\n", argv[0]);
			return 1;
		}
	}
	if (!asked)
		return 1;
	if (file && (fd = open(file, O_RDONLY)) < 0) {
		perror(file);
		return 125;
	}
	o = json_tokener_parse(text ? text : read_all(fd));
	if (!o) {
		if (!quiet)
			fprintf(stderr, "Failed to parse json data: unexpected end of data\n");
		return 126;
	}
	optind = 1;
	while ((opt = getopt(argc, argv, options)) != -1)
		if (opt == 'e' || opt == 't')
			any |= evaluate(o, optarg, opt == 't');
	return any ? 0 : 1;
}
