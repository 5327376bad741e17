"""A double of what X-Pack adds to Elasticsearch, in front of the real Elasticsearch core.

Stands for: Elasticsearch's default distribution 9.2 where only its core is to be had (Maven Central has no X-Pack):
TLS on the HTTP port, users, roles, API keys and service tokens, privileges on every request, lifecycle policies,
snapshot policies and ``/``. Documents, searches, mappings and templates are the real core's: they are passed
through, and never looked at beyond what authorization needs (index names and bulk actions).

Behaves as: Elastic's reference documentation 9.x says (chapters "REST APIs / Security", "Security privileges",
"Elasticsearch security settings", "Index lifecycle management", "elasticsearch-keystore"), and as the answers of
Elasticsearch 8 and 9 were seen to look. What is not known here is refused, not guessed.

Does not have: the execution of lifecycle policies (they are checked and kept, no index ever moves), field and document
level security, realms other than native, file and reserved, clusters of several nodes, TLS on the transport port.
"""

VERSION = "9.2.0"
