"""What differs between two policy bundles, in words, and whose approval each change needs (P-3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from airlock.core.base import Value
from airlock.core.policy import Limit, Policy, Rule, Seat

NOBODY = ""
"""Owner of what belongs to nobody, such as the description."""


class Change(Value):
    """One difference.

    Attributes:
        section: section of the bundle it is in, such as ``limits``.
        subject: what changed, such as ``red_change`` or the id of a rule.
        sentence: what changed, for people.
        owner: role whose approval it needs: the owner before the change, so that nobody takes over a limit
            by writing their own role into it; empty where nobody owns it.
        before: the value in the first bundle; ``None`` where it is new.
        after: the value in the second bundle; ``None`` where it is gone.
    """

    section: str
    subject: str
    sentence: str
    owner: str = NOBODY
    before: Any = None
    after: Any = None

    @property
    def owner_is_new(self) -> bool:
        """Whether its owner is nobody's but the author's choice: it stands in the second bundle alone."""
        whole = self.section in _OWNED and "." not in self.subject  # a part of a gate has the gate's owner
        return whole and bool(self.owner) and self.before is None


_OWNED = ("limits", "rules", "gates")


def diff(before: Policy, after: Policy) -> list[Change]:
    """Every difference between two bundles, in the order of their sections.

    Law: two bundles have no differences exactly when they have one digest.
    """
    return [
        *_head(before, after),
        *_limits(before.limits, after.limits),
        *_rules(before, after),
        *_gates(before, after),
        *_approval(before, after),
        *_roles(before, after),
        *_rest(before, after),
        *_texts(before.rego, after.rego),
    ]


def _head(before: Policy, after: Policy) -> Iterator[Change]:
    for name in ("version", "description"):
        one, two = getattr(before, name), getattr(after, name)
        if one != two:
            yield Change(
                section=name, subject=name, sentence=f"{name}: {one!r} becomes {two!r}", before=one, after=two
            )


T = TypeVar("T", Limit, Rule)


@dataclass(frozen=True)
class _Words(Generic[T]):
    """How a change of something that has an owner is told; each gets its name first."""

    section: str
    new: Callable[[str, T], str]
    gone: Callable[[str, T], str]
    other: Callable[[str, T, T], str]


def _owned(before: Mapping[str, T], after: Mapping[str, T], words: _Words[T]) -> Iterator[Change]:
    """What differs in a section whose parts have owners; the owner before the change answers for it."""
    for name in _names(before, after):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None:
            text = "" if old == new else words.other(name, old, new)
        elif new is not None:
            text = words.new(name, new)
        else:
            text = "" if old is None else words.gone(name, old)
        known = old or new
        if text and known is not None:
            yield Change(
                section=words.section,
                subject=name,
                sentence=f"{text}: owner {known.owner}",
                owner=known.owner,
                before=None if old is None else old.to_data(),
                after=None if new is None else new.to_data(),
            )


def _limits(before: Mapping[str, Limit], after: Mapping[str, Limit]) -> Iterator[Change]:
    yield from _owned(before, after, _LIMIT_WORDS)


def _limit_words(old: Limit, new: Limit) -> str:
    words = []
    if old.value != new.value or old.unit != new.unit:
        verb = "falls" if new.value < old.value else "rises" if new.value > old.value else "goes"
        words.append(f"{verb} from {old.text} to {new.text}")
    if old.owner != new.owner:
        words.append(f"goes from owner {old.owner} to {new.owner}")
    if old.why != new.why:
        words.append("has another reason")
    return " and ".join(words)


def _rules(before: Policy, after: Policy) -> Iterator[Change]:
    old_rules, new_rules = ({rule.id: rule for rule in policy.rules} for policy in (before, after))
    yield from _owned(old_rules, new_rules, _RULE_WORDS)
    both = [name for name in old_rules if name in new_rules]
    if both != [name for name in new_rules if name in old_rules]:
        yield Change(
            section="rules",
            subject="order",
            sentence="rules stand in another order, which changes the order of reasons and nothing else",
        )


def _effect(rule: Rule) -> str:
    if rule.effect.seats is None:
        return rule.effect.label
    return "seats for " + ", ".join(seat.role for seat in rule.effect.seats)


def _rule_words(old: Rule, new: Rule) -> Iterator[str]:
    if old.when != new.when:
        yield f"its condition `{old.when}` becomes `{new.when}`"
    if old.effect != new.effect:
        yield f"its effect goes from {_effect(old)} to {_effect(new)}"
    for name in ("owner", "severity", "expires"):
        one, two = getattr(old, name), getattr(new, name)
        if one != two:
            yield f"its {name} goes from {one} to {two}"
    texts = [name for name in ("title", "why", "fix", "because", "otherwise") if _differ(old, new, name)]
    if texts:
        yield f"another text for {', '.join(texts)}"
    if old.tests != new.tests:
        yield "other tests"


_LIMIT_WORDS: _Words[Limit] = _Words(
    "limits",
    new=lambda name, limit: f"limit {name} is new: {limit.text}",
    gone=lambda name, limit: f"limit {name} ({limit.text}) is gone",
    other=lambda name, old, new: f"limit {name} {_limit_words(old, new)}",
)

_RULE_WORDS: _Words[Rule] = _Words(
    "rules",
    new=lambda name, rule: f"rule {name} is new: {_effect(rule)} when {rule.when}",
    gone=lambda name, rule: f"rule {name} is gone; it said: {_effect(rule)} when {rule.when}",
    other=lambda name, old, new: f"rule {name}: {'; '.join(_rule_words(old, new))}",
)


def _gates(before: Policy, after: Policy) -> Iterator[Change]:
    for name in _names(before.gates, after.gates):
        old, new = before.gates.get(name), after.gates.get(name)
        # A gate that nobody owned before has no owner yet: whoever writes one into the new bundle is none.
        owner = (after if old is None else before).owner_of_gate(name) or NOBODY
        tail = f": owner {owner}" if owner else ""
        if old is None:
            sentence = f"gate {name} is new; every release needs its answer{tail}"
            yield Change(section="gates", subject=name, sentence=sentence, owner=owner, after=new)
        elif new is None:
            sentence = f"gate {name} is gone; nothing checks this any more{tail}"
            yield Change(section="gates", subject=name, sentence=sentence, owner=owner, before=old)
        else:
            for path, one, two in _values(old, new):
                yield Change(
                    section="gates",
                    subject=f"{name}.{path}",
                    sentence=f"gate {name}: {path} {_words(one, two)}{tail}",
                    owner=owner,
                    before=one,
                    after=two,
                )
    if list(before.gates) != list(after.gates) and set(before.gates) == set(after.gates):
        yield Change(section="gates", subject="order", sentence="gates stand in another order")


def _approval(before: Policy, after: Policy) -> Iterator[Change]:
    for track, old in before.approval.seats.items():
        new = after.approval.seats[track]
        if old != new:
            yield Change(
                section="approval",
                subject=f"seats.{track}",
                sentence=f"track {track} asks for {_seats(new)} instead of {_seats(old)}",
                before=[seat.to_data() for seat in old],
                after=[seat.to_data() for seat in new],
            )
    yield from _plain("approval", _without(before.approval, "seats"), _without(after.approval, "seats"))


def _seats(seats: Sequence[Seat]) -> str:
    return ", ".join(seat.role for seat in seats) or "nobody"


def _roles(before: Policy, after: Policy) -> Iterator[Change]:
    old = {name: role.to_data() for name, role in before.roles.items()}
    new = {name: role.to_data() for name, role in after.roles.items()}
    for path, one, two in _values(old, new):
        role = path.split(".")[0]
        yield Change(
            section="roles",
            subject=path,
            sentence=f"roles: {path} {_words(one, two)}",
            owner=role if role in before.roles else NOBODY,
            before=one,
            after=two,
        )


_TOLD = {"version", "description", "limits", "rules", "gates", "approval", "roles", "rego"}


def _rest(before: Policy, after: Policy) -> Iterator[Change]:
    """Sections that need no words of their own; one that is added later is found here by itself."""
    old, new = before.to_data(), after.to_data()
    for section in _names(old, new):
        if section not in _TOLD:
            yield from _plain(section, old.get(section), new.get(section))


def _plain(section: str, old: Any, new: Any) -> Iterator[Change]:
    for path, one, two in _values(old, new):
        subject = path or section
        sentence = f"{section}: {path} {_words(one, two)}" if path else f"{section} {_words(one, two)}"
        yield Change(section=section, subject=subject, sentence=sentence, before=one, after=two)


def _texts(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in _names(before, after):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        what = "is new" if old is None else "is gone" if new is None else "has another text"
        yield Change(section="rego", subject=name, sentence=f"Rego file {name} {what}", before=old, after=new)


def _values(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The smallest parts that differ, with their places."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in _names(old, new):
            yield from _values(old.get(name), new.get(name), f"{path}.{name}" if path else str(name))
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _words(old: Any, new: Any) -> str:
    if old is None:
        return f"is new: {new}"
    if new is None:
        return f"({old}) is gone"
    if isinstance(old, list) and isinstance(new, list):
        plus = [str(item) for item in new if item not in old]
        minus = [str(item) for item in old if item not in new]
        parts = [*(f"gains {item}" for item in plus), *(f"loses {item}" for item in minus)]
        return ", ".join(parts) or "has another order"
    if _number(old) and _number(new):
        return f"{'falls' if new < old else 'rises'} from {old} to {new}"
    return f"goes from {old} to {new}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*one, *two]))


def _differ(old: Rule, new: Rule, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def _without(value: Value, name: str) -> dict[str, Any]:
    return {key: item for key, item in value.to_data().items() if key != name}
