"""What differs between two policies, in words, and who answers for each difference (requirement P-3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airlock.core.base import Value
from airlock.core.policy import Policy, Track

_SHOWN = 120
"""Characters of a value in a sentence."""

_SECTIONS = ("roles", "approval", "sandbox", "waivers", "base_case")
"""Sections that nobody owns alone; compared field by field."""


class Change(Value):
    """One difference.

    Attributes:
        area: section of the bundle: ``limits``, ``rules``, ``gates`` …
        name: what in it changed.
        sentence: from what to what, for people.
        owners: roles that answer for it; of a change of owner the old and the new.
    """

    area: str
    name: str
    sentence: str
    owners: list[str]


def changes(old: Policy, new: Policy) -> list[Change]:
    """Every difference but the version, in the order of the sections.

    Law: there is none exactly when the two say the same; what nobody owns is answered for by everybody who
    has a seat on the heaviest track of the old policy.
    """
    found = [*_limits(old, new), *_rules(old, new), *_gates(old, new)]
    common = common_owners(old)
    before, after = old.to_data(), new.to_data()
    for section in _SECTIONS:
        if section in before:
            found += _fields(section, before[section], after.get(section), common)
    found += _rego(old, new, common)
    if old.description != new.description:
        found.append(_change("description", "description", "the description changes", common))
    covered = {"limits", "rules", "gates", "rego", "description", "version", *_SECTIONS}
    for section in sorted((set(before) | set(after)) - covered):
        found += _fields(section, before.get(section), after.get(section), common)
    return found


def common_owners(policy: Policy) -> list[str]:
    """Who answers for what nobody owns: the roles with a seat on the heaviest track."""
    return sorted({seat.role for seat in policy.approval.seats[Track.RED]})


def roles_asked(found: list[Change], old: Policy) -> list[str]:
    """The roles whose approval these changes need, each once; of no changes, the common ones."""
    return sorted({role for change in found for role in change.owners}) or common_owners(old)


def _change(area: str, name: str, sentence: str, owners: list[str]) -> Change:
    return Change(area=area, name=name, sentence=sentence, owners=sorted(set(owners)))


def _limits(old: Policy, new: Policy) -> Iterator[Change]:
    for name in sorted({*old.limits, *new.limits}):
        before, after = old.limits.get(name), new.limits.get(name)
        if before == after:
            continue
        owners = [limit.owner for limit in (before, after) if limit is not None]
        if before is None or after is None:
            said = f"is new: {after.text}" if after is not None else "is removed"
        elif before.value != after.value:
            verb = "rises" if after.value > before.value else "falls"
            said = f"{verb} from {before.text} to {after.text}"
        elif before.owner != after.owner:
            said = f"passes from {before.owner} to {after.owner}"
        else:
            said = "is explained differently"
        yield _change("limits", name, f"limit {name} {said}", owners)


def _rules(old: Policy, new: Policy) -> Iterator[Change]:
    before, after = ({rule.id: rule for rule in policy.rules} for policy in (old, new))
    for rule_id in [*before, *(rule_id for rule_id in after if rule_id not in before)]:
        was, now = before.get(rule_id), after.get(rule_id)
        if was is None or now is None:
            known = was or now
            owner = known.owner if known is not None else ""
            verb = "is new" if was is None else "is removed"
            yield _change("rules", rule_id, f"rule {rule_id} {verb}", [owner])
        elif was != now:
            parts = list(_differences(was.to_data(), now.to_data()))
            said = "; ".join(parts)
            yield _change("rules", rule_id, f"rule {rule_id}: {said}", [was.owner, now.owner])
    order = [rule_id for rule_id in before if rule_id in after]
    if order != [rule_id for rule_id in after if rule_id in before]:
        yield _change("rules", "order", "the order of rules changes", common_owners(old))


def _gates(old: Policy, new: Policy) -> Iterator[Change]:
    for gate in sorted({*old.gates, *new.gates}):
        was, now = old.gates.get(gate), new.gates.get(gate)
        if was == now:
            continue
        owners = [owner for owner in (old.owner_of_gate(gate), new.owner_of_gate(gate)) if owner]
        if was is None or now is None:
            said = "is new" if was is None else "is taken out: nothing asks it any more"
            yield _change("gates", gate, f"gate {gate} {said}", owners or common_owners(old))
        else:
            said = "; ".join(_differences(was, now))
            yield _change("gates", gate, f"gate {gate}: {said}", owners or common_owners(old))
    kept = [gate for gate in old.gates if gate in new.gates]
    if kept != [gate for gate in new.gates if gate in old.gates]:
        yield _change("gates", "order", "the order of gates changes", common_owners(old))


def _rego(old: Policy, new: Policy, common: list[str]) -> Iterator[Change]:
    for name in sorted({*old.rego, *new.rego}):
        was, now = old.rego.get(name), new.rego.get(name)
        if was != now:
            verb = "is new" if was is None else "is removed" if now is None else "changes"
            yield _change("rego", name, f"Rego file {name} {verb}", common)


def _fields(section: str, was: Any, now: Any, owners: list[str]) -> Iterator[Change]:
    if was == now:
        return
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        verb = "is new" if was is None else "is removed" if now is None else "changes"
        yield _change(section, section, f"{section} {verb}", owners)
        return
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name) or (name in was) != (name in now):
            (said, *_) = _differences(
                {name: was[name]} if name in was else {}, {name: now[name]} if name in now else {}
            )
            yield _change(section, name, f"{section}: {said}", owners)


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*was, *now}):
        if name not in now:
            yield f"{name} is removed"
        elif name not in was:
            yield f"{name} is new: {_short(now[name])}"
        elif was[name] != now[name]:
            yield f"{name} changes from {_short(was[name])} to {_short(now[name])}"


def _short(value: Any) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else f"{value}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
