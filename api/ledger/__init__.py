"""The usage ledger: what each request used and cost, exact to the token, whatever happens to the server.

An entry is written to a journal on the server's own disk when its request ends, and brought from there to the
database (or a company's own ledger) in batches: a database that is gone delays entries, and loses none.
"""
