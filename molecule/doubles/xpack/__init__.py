"""A double of what X-Pack adds to Elasticsearch, in front of the real Elasticsearch core.

Stands for: X-Pack of Elasticsearch 9.2, because Maven Central has only the core. It adds TLS on the HTTP port, users,
roles, API keys and service tokens, privileges on every request, lifecycle policies, snapshot policies and ``/``.
Documents, searches, mappings and templates are the real core's: the double passes these requests on, and reads only
their index names and bulk actions, for authorization.

Behaves as: Elastic's reference documentation 9.x (chapters "REST APIs / Security", "Security privileges",
"Elasticsearch security settings", "Index lifecycle management", "elasticsearch-keystore"), and real answers of
Elasticsearch 8 and 9. Anything else is refused.

Does not have: requests, settings and privileges that no role or test uses, the execution of lifecycle policies (they
are checked and kept), field and document level security, realms other than native, file and reserved, clusters of
several nodes, TLS on the transport port.
"""

VERSION = "9.2.0"
