"""The questions auditors ask, each answered from the audit store and the evidence alone (requirement E-4).

Airflow, MLflow and the files in ``config/`` are not asked: they say how things are now, not how they
were. One question is one function that takes a deployment and returns a frozen answer. Each reads a
bounded number of events through an index and says when there were more; each fact names the event it
rests on by its number in the store, so that it can be proved. Evidence that is not here, or was
changed, is said in ``missing``; what the events say stands all the same. Times are microseconds since
1970 UTC as the writer claimed them, intervals include their start and not their end.

events.py      filters over everything
data.py        which data trained a version
approvals.py   who approved it, and what they saw
champions.py   what was in production
people.py      everything a person did
policies.py    who published a policy version, and what was judged under it
waivers.py     which rule was waived, and by whom
access.py      that somebody asked
reading.py     bounded reading of events and evidence, for all of them
"""

from airlock.services.questions.access import record_access
from airlock.services.questions.approvals import Approval, Approvals, Given, Refused, approvals_of
from airlock.services.questions.champions import Period, Production, Start, production
from airlock.services.questions.data import Data, Inputs, VersionData, data_of
from airlock.services.questions.events import Found, query
from airlock.services.questions.people import Doings, Person, person
from airlock.services.questions.policies import Judged, PolicyUse, Published, policy_use
from airlock.services.questions.reading import RELEASES, Adoption, Decided, GateSaid, Line
from airlock.services.questions.waivers import Use, Waived, WaivedRule, waived

__all__ = ["RELEASES", "Adoption", "Approval", "Approvals", "Data", "Decided", "Doings", "Found", "GateSaid"]
__all__ += ["Given", "Inputs", "Judged", "Line", "Period", "Person", "PolicyUse", "Production", "Refused"]
__all__ += ["Start", "VersionData", "approvals_of", "data_of", "person", "policy_use", "production", "query"]
__all__ += ["Published", "Use", "Waived", "WaivedRule", "record_access", "waived"]
