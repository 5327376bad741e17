"""wrtflow: what the collector does with a router's lines beyond syslog-ng's own parsers."""
