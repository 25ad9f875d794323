"""What is wrong with a policy bundle, before a release meets it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Literal

from pydantic import ValidationError

from airlock.adapters.policy_files import PolicyFiles
from airlock.adapters.rego import RegoRules
from airlock.adapters.rego.reading import is_test
from airlock.core.cel import parse
from airlock.core.cel_types import mistakes, unknown_fact
from airlock.core.errors import AirlockError, ConfigurationError
from airlock.core.facts import PRODUCTION
from airlock.core.monitoring import Action
from airlock.core.people import People
from airlock.core.policy import Policy, Rule, Tier, Track
from airlock.core.rules import FactSet
from airlock.core.sentences import facts_in
from airlock.gates import gate_names, load_gate
from airlock.ports import PolicyEngine
from airlock.services.rule_tests import cases_of, facts_for, wrong_value

_FIX_WHEN = "correct the rule's `when`; docs/policy.md lists facts and functions"


@dataclass(frozen=True)
class Problem:
    """Something a policy author must mend, or should.

    Attributes:
        level: ``error`` refuses the bundle, ``warning`` does not.
        id: kind of problem, such as ``unknown-fact``.
        where: file and line.
    """

    level: Literal["error", "warning"]
    id: str
    what: str
    where: str
    fix: str
    rule: str = ""


def check_bundle(
    open_files: Callable[[], PolicyFiles],
    engine: PolicyEngine,
    *,
    today: date,
    people: People | None = None,
    rego: RegoRules | None = None,
) -> list[Problem]:
    """Everything that is wrong with a bundle; a bundle that cannot be read has one problem.

    Raises:
        NotFoundError: there is no such bundle.
    """
    try:
        files = open_files()
        policy = files.policy()
    except ConfigurationError as error:
        return [Problem("error", "unreadable", error.what, error.where, error.fix)]
    found = [
        *gate_problems(policy, files),
        *waiver_problems(policy, files),
        *(problem for rule in policy.rules for problem in _rule_problems(rule, policy, files, today)),
        *_actions_without_limits(policy, files),
        *_base_problems(policy, files),
    ]
    broken = {problem.rule for problem in found if problem.level == "error"}
    found += _engine_problems(policy, files, engine, broken)
    if not any(problem.level == "error" for problem in found):
        found += _shadowed(policy, files, engine)
    found += _limit_problems(policy, files)
    found += _people_problems(policy, files, people)
    return [*found, *_rego_problems(policy, files, rego)]


def gate_problems(policy: Policy, files: PolicyFiles) -> Iterator[Problem]:
    """Gates that do not exist, do not accept their configuration, or belong to nobody."""
    for gate, values in policy.gates.items():
        if gate not in gate_names():
            near = difflib.get_close_matches(gate, gate_names(), n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            yield Problem(
                "error",
                "unknown-gate",
                f"gates.{gate}: there is no such gate",
                files.place(["gates", gate]),
                f"{guess}gates: {', '.join(gate_names())}",
            )
            continue
        try:
            load_gate(gate).Config.model_validate(values)
        except ValidationError as error:
            for problem in error.errors():
                location = ("gates", gate, *problem["loc"])
                yield Problem(
                    "error",
                    "gate-configuration",
                    f"{'.'.join(map(str, location))}: {str(problem['msg']).removeprefix('Value error, ')}",
                    files.place(location),
                    f"the fields are {', '.join(load_gate(gate).Config.model_fields)}",
                )
        if policy.owner_of_gate(gate) is None:
            yield Problem(
                "warning",
                "gate-without-owner",
                f"gate {gate} has no owner, so nobody can approve a change of its limits",
                files.place(["gates", gate]),
                "add it to the `gates` of a role in roles.yaml",
            )


def waiver_problems(policy: Policy, files: PolicyFiles) -> Iterator[Problem]:
    """Scopes that may be waived and belong to nobody."""
    for number, scope in enumerate(policy.waivers.waivable if policy.waivers else []):
        if policy.owner_of(scope) is None:
            yield Problem(
                "error",
                "waivable",
                f"waivers.waivable.{number}: {scope} is no gate with an owner and no rule that denies",
                files.place(["waivers", "waivable", number]),
                "name it as `airlock policy show` does, and give its gate an owner under roles",
            )


def refuse_problems(policy: Policy, files: PolicyFiles) -> None:
    """Refuse a policy whose gates cannot run, or whose waivers nobody could grant.

    Raises:
        ConfigurationError: naming file, line, gate and field.
    """
    for problem in (*gate_problems(policy, files), *waiver_problems(policy, files)):
        if problem.level == "error":
            raise ConfigurationError(problem.what, where=problem.where, fix=problem.fix)


def _rule_problems(rule: Rule, policy: Policy, files: PolicyFiles, today: date) -> Iterator[Problem]:
    known = partial(unknown_fact, limits=policy.limits, gates=policy.gates)
    for kind, what, fix, *field in (
        *_condition_problems(rule, policy),
        *_sentence_problems(rule, known),
        *_test_problems(rule, known),
    ):
        yield Problem(
            "error", str(kind), f"{rule.id}: {what}", files.rule_place(rule.id, *field), str(fix), rule.id
        )
    if rule.expires != "never" and rule.expires < today:
        what = f"{rule.id}: it expired on {rule.expires}; a release judged by it would be denied"
        place = files.rule_place(rule.id, "expires")
        yield Problem("error", "expired", what, place, f"{rule.owner} renews it or takes it out", rule.id)


Complaint = tuple[str | int, ...]
"""Kind, what is wrong, how to fix it, and the path of the field inside the rule."""


def _condition_problems(rule: Rule, policy: Policy) -> Iterator[Complaint]:
    try:
        condition = parse(rule.when)
    except ConfigurationError as refusal:
        yield "condition", refusal.what, refusal.fix, "when"
        return
    yield from _misplaced(rule, condition.facts)
    for mistake in mistakes(condition, limits=policy.limits, gates=policy.gates):
        kind = "unknown-fact" if mistake.what.startswith("there is no fact") else "type"
        yield kind, f"{mistake.what} (character {mistake.at} of `when`)", _FIX_WHEN, "when"


_OF_BOTH = ("workload", "limits")
_OF_ACTIONS = (*PRODUCTION, *_OF_BOTH, "risk.tier")


def _misplaced(rule: Rule, facts: Sequence[str]) -> Iterator[Complaint]:
    """Facts of releases in rules about production, and the other way round: they would never be there."""
    acts = rule.effect.action is not None
    for fact in facts:
        of_production = fact.partition(".")[0] in PRODUCTION
        if acts and not any(fact == name or fact.startswith(f"{name}.") for name in _OF_ACTIONS):
            what = f"{fact} is about a release, and a rule with an action knows none"
            yield "misplaced", what, f"ask for {', '.join(_OF_ACTIONS)}", "when"
        elif not acts and of_production:
            what = f"{fact} is about production, and only rules with an action know it"
            yield (
                "misplaced",
                what,
                "give the rule an effect `action`, or ask for facts of the release",
                "when",
            )


def _actions_without_limits(policy: Policy, files: PolicyFiles) -> Iterator[Problem]:
    rules = [rule for rule in policy.rules if rule.effect.action is not None]
    if rules and policy.monitoring is None:
        yield Problem(
            "error",
            "no-monitoring",
            f"{rules[0].id}: it acts on production, and the policy has no section monitoring",
            files.rule_place(rules[0].id, "effect"),
            "add a section monitoring with limits, hysteresis and actions, or take the rule out",
            rules[0].id,
        )


def _sentence_problems(rule: Rule, known: Callable[[str], str]) -> Iterator[Complaint]:
    for field in ("because", "otherwise", "fix"):
        try:
            shown = facts_in(getattr(rule, field))
        except ConfigurationError as refusal:
            yield "sentence", f"{field}: {refusal.what}", refusal.fix, field
            continue
        for fact in shown:
            if problem := known(fact):
                yield "unknown-fact", f"{field}: {problem}", "correct the name in the sentence", field


def _test_problems(rule: Rule, known: Callable[[str], str]) -> Iterator[Complaint]:
    if lacking := [kind for kind in ("fires", "silent") if not getattr(rule.tests, kind)]:
        fix = "add `tests: {fires: [{fact: value}], silent: [{fact: value}]}`"
        yield "untested", f"it has no test case for {' and '.join(lacking)}", fix, "tests"
    for wanted, number, patch in cases_of(rule):
        for path, value in patch.items():
            if problem := known(path) or wrong_value(path, value):
                yield "test", f"tests.{wanted}: {problem}", "correct the case", "tests", wanted, number


def _base_problems(policy: Policy, files: PolicyFiles) -> Iterator[Problem]:
    if not policy.base_case:
        yield Problem(
            "error",
            "no-base-case",
            "base_case is missing: the tests of rules change the facts of an ordinary release",
            str(files.folder),
            "add a section base_case with every fact that rules read",
        )
        return
    for path, value in FactSet(policy.base_case).flat.items():
        problem = unknown_fact(path, limits=policy.limits, gates=policy.gates) or wrong_value(path, value)
        if problem:
            place = files.place(["base_case", *path.split(".")])
            yield Problem("error", "base-case", f"base_case: {problem}", place, "correct it")


def _engine_problems(
    policy: Policy, files: PolicyFiles, engine: PolicyEngine, broken: set[str]
) -> Iterator[Problem]:
    """Conditions that the engine itself refuses although they look right."""
    session = engine.begin(policy, facts_for(policy, {}))
    for rule in policy.rules:
        if rule.id in broken:
            continue
        try:
            session.fires(rule)
        except ConfigurationError as error:
            place = files.rule_place(rule.id, "when")
            yield Problem("error", "condition", f"{rule.id}: {error.what}", place, _FIX_WHEN, rule.id)
        except AirlockError as error:
            place = files.rule_place(rule.id, "when")
            what = f"{rule.id}: it cannot be evaluated on the base case: {error.what}"
            fix = "add the fact to base_case, or ask has(fact) first"
            yield Problem("error", "base-case", what, place, fix, rule.id)


def _weight(rule: Rule) -> tuple[str, int] | None:
    """What a rule competes for, and how heavy it is there; ``None`` where it always counts."""
    if rule.effect.tier is not None:
        return "tier", list(Tier).index(rule.effect.tier)
    if rule.effect.track is not None:
        return "outcome", list(Track).index(rule.effect.track)
    if rule.effect.action is not None:
        return "action", list(Action).index(rule.effect.action)
    return ("outcome", len(Track)) if rule.effect.deny else None


def _shadowed(policy: Policy, files: PolicyFiles, engine: PolicyEngine) -> Iterator[Problem]:
    """Rules that cannot change an outcome, as far as their own tests show.

    A rule is shadowed when a heavier one fires on each case that it fires on, or when one as heavy has the
    same condition.
    """
    firing = {rule.id: [_fired(policy, engine, patch) for patch in rule.tests.fires] for rule in policy.rules}
    order = {rule.id: number for number, rule in enumerate(policy.rules)}
    for rule in policy.rules:
        weight = _weight(rule)
        for other in policy.rules:
            rival = _weight(other)
            if other.id == rule.id or weight is None or rival is None or weight[0] != rival[0]:
                continue
            same = _same_condition(rule, other) and (rival, -order[other.id]) > (weight, -order[rule.id])
            if same or (rival > weight and all(other.id in fired for fired in firing[rule.id])):
                why = "has the same condition" if same else "fires on every case that this rule fires on"
                yield Problem(
                    "error",
                    "shadowed",
                    f"{rule.id}: it can never change an outcome: {other.id} ({other.effect.label}) {why}",
                    files.rule_place(rule.id),
                    f"take one of them out, or add a case to tests.fires on which {other.id} stays silent",
                    rule.id,
                )
                break


def _same_condition(one: Rule, two: Rule) -> bool:
    return "".join(one.when.split()) == "".join(two.when.split())


def _fired(policy: Policy, engine: PolicyEngine, patch: object) -> set[str]:
    session = engine.begin(policy, facts_for(policy, patch if isinstance(patch, dict) else {}))
    fired = set()
    for rule in policy.rules:
        try:
            if session.fires(rule):
                fired.add(rule.id)
        except AirlockError:  # a fact that this case takes away; it is no witness then
            continue
    return fired


def _rego_problems(policy: Policy, files: PolicyFiles, rego: RegoRules | None) -> Iterator[Problem]:
    """What the Rego files may not do, that nobody tests them, and that they fail on the base case."""
    if not policy.rego:
        return
    where = str(files.folder)
    if not any(is_test(file) for file in policy.rego):
        fix = "add a *_test.rego file with rules test_…, which `airlock policy test` runs"
        yield Problem("error", "untested", "the rules in Rego have no tests", where, fix)
    if rego is None:
        return
    try:
        objections = rego.objections(policy)
        for one in objections:
            yield Problem(
                "error", one.id, f"Rego: {one.what}", f"{files.folder / one.file}:{one.line}", one.fix
            )
        if not objections:
            rego.reasons(policy, facts_for(policy, {}))
    except AirlockError as error:
        yield Problem("error", "rego", f"Rego: {error.what}", where, error.fix or "correct the *.rego file")


def _limit_problems(policy: Policy, files: PolicyFiles) -> Iterator[Problem]:
    texts = [text for rule in policy.rules for text in (rule.when, rule.because, rule.otherwise)]
    texts += policy.rego.values()
    for name in policy.limits:
        if not any(f"limits.{name}" in text for text in texts):
            place = files.place(["limits", name])
            yield Problem(
                "warning", "unused-limit", f"limit {name} is used by no rule", place, "use it or take it out"
            )


def _people_problems(policy: Policy, files: PolicyFiles, people: People | None) -> Iterator[Problem]:
    """Roles that somebody must hold, because releases or waivers would wait for them for ever."""
    if people is None:
        return
    wanted: dict[str, str] = {}
    for track, seats in policy.approval.seats.items():
        for number, seat in enumerate(seats):
            wanted.setdefault(seat.role, files.place(["approval", "seats", track, number]))
    for rule in policy.rules:
        for seat in rule.effect.seats or []:
            wanted.setdefault(seat.role, files.rule_place(rule.id, "effect"))
    for number, scope in enumerate([] if policy.waivers is None else policy.waivers.waivable):
        if role := policy.waiver_role(scope):
            wanted.setdefault(role, files.place(["waivers", "waivable", number]))
    for role, place in wanted.items():
        if not people.holders(role):
            yield Problem(
                "warning",
                "role-without-people",
                f"nobody in people.yaml holds the role {role}, so its seat can never be filled",
                place,
                "give somebody the role in people.yaml",
            )
