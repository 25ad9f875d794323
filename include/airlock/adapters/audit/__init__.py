"""The audit log on SQLite (embedded default) and PostgreSQL (production).

database.py   connections, the writers' queue of SQLite, errors in words
store.py      appends and queries
log.py        the Merkle tree: integration of what was appended, reading, proofs
personal.py   what people wrote, encrypted and erasable
keys.py       the signing key and its public half
spool.py      routine events while the database does not answer
roles.py      who may do what in PostgreSQL
"""

from airlock.adapters.audit.database import Database
from airlock.adapters.audit.keys import SigningKey
from airlock.adapters.audit.log import Log
from airlock.adapters.audit.personal import Vault
from airlock.adapters.audit.spool import Spool
from airlock.adapters.audit.store import SqlAuditStore

__all__ = ["Database", "Log", "SigningKey", "Spool", "SqlAuditStore", "Vault"]
