"""The wire contract: every request, answer and event of the API, defined once.

`endpoints` is the table of what a server answers; the other modules hold the members of its requests and answers, by
noun.  The server decodes and encodes with them, and the OpenAPI document (`openapi`) is made from them.

A request with a member that is not here is refused.  An answer is read leniently: what a newer server adds is ignored,
what an older one leaves out has a default.  `docs/reference/api.md` says what may change, and how a client asks.
"""
