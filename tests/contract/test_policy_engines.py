"""Every engine behind the port: the same rules give the same reasons, and what is not understood denies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.rego import RegoRules
from airlock.adapters.rego.opa import OpaServer, renamed
from airlock.adapters.rego.process import RegoProcess
from airlock.core.decision import Decision, Outcome, decide
from airlock.core.errors import ConfigurationError, InvalidInputError, UnavailableError
from airlock.core.policy import Effect, Policy, Tier, Track
from airlock.core.rules import FactSet
from tests.support.engines import TODAY
from tests.unit.test_decision import MANIFEST, WORKLOAD, all_passed, make_policy, make_rule

MODELS = {"candidate": {"estimator": "tree", "features": ["a", "b"], "threshold": 0.5}}


class FakeOpa(BaseHTTPRequestHandler):
    """OPA's REST API for policies and data, evaluated by a real engine."""

    policies: dict[str, str]
    broken: str

    def do_PUT(self) -> None:
        self.policies[self.path.removeprefix("/v1/policies/")] = self._body().decode()
        self._reply({})

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        facts = json.loads(self._body())["input"]
        if self.broken:
            self._reply(json.loads(self.broken), 500 if "code" in self.broken else 200)
            return
        assert query == "strict-builtin-errors=true"
        import regorus

        engine = regorus.Engine()
        for name, text in self.policies.items():
            engine.add_policy(name, text)
        engine.set_input_json(json.dumps(facts))
        package = path.removeprefix("/v1/data/")
        try:
            result = json.loads(engine.eval_query_as_json(f"data.{package}")).get("result")
        except RuntimeError as error:
            self._reply({"code": "internal_error", "message": str(error)[:100]}, 500)
            return
        self._reply({"result": result[0]["expressions"][0]["value"]} if result else {})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def opa() -> Iterator[tuple[str, type[FakeOpa]]]:
    handler = type("Handler", (FakeOpa,), {"policies": {}, "broken": ""})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


KINDS = ["cel", "regorus", "opa"]


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, opa: tuple[str, type[FakeOpa]]) -> CelEngine:
    evaluator = OpaServer(opa[0]) if request.param == "opa" else None
    return CelEngine(RegoRules(evaluator).reasons)


def with_rego(text: str, **more: str) -> Policy:
    header = "package airlock\n\nimport rego.v1\n\n"
    return make_policy(rego={"rules.rego": header + text, **more})


def judge(policy: Policy, engine: CelEngine, **changes: Any) -> Decision:
    return decide(
        manifest=changes.get("manifest", MANIFEST),
        workload=WORKLOAD,
        policy=policy,
        evidence=all_passed(),
        engine=engine,
        as_of=TODAY,
    )


def same_rule(request: pytest.FixtureRequest, condition: dict[str, str], effect: str) -> Policy:
    """One rule in the language of the engine under test."""
    if request.node.callspec.params["engine"] == "cel":
        effects = {
            "deny": Effect(deny=True),
            "warn": Effect(warn=True),
            "track": Effect(track=Track.RED),
        }
        rule = make_rule("same-rule", condition["cel"], effects[effect], because="it is so", fix="change it")
        return make_policy(rule)
    extra = ', "track": "red"' if effect == "track" else ""
    item = f'{{"id": "same-rule", "msg": "it is so", "fix": "change it"{extra}}}'
    return with_rego(f"{effect} contains {item} if {{ {condition['rego']} }}\n")


TRUE = {"cel": 'workload.name == "test-model"', "rego": 'input.workload.name == "test-model"'}
FALSE = {"cel": "limits.change > 1.0", "rego": "input.limits.change > 1"}
MISSING = {"cel": "candidate.threshold > 0.1", "rego": "input.candidate.threshold > 0.1"}
WRONG = {
    "cel": 'workload.name > 1 || workload.name.matches("(")',
    "rego": "to_number(input.workload.name) > 1",
}


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    ("effect", "outcome"),
    [("deny", Outcome.DENY), ("warn", Outcome.ALLOW), ("track", Outcome.PENDING)],
)
def test_a_rule_that_fires_is_a_reason_with_its_effect(
    engine: CelEngine, request: pytest.FixtureRequest, effect: str, outcome: Outcome
) -> None:
    decision = judge(same_rule(request, TRUE, effect), engine)
    (reason,) = [reason for reason in decision.reasons if reason.rule == "same-rule"]
    assert (reason.message, reason.fix, reason.fired) == ("it is so", "change it", True)
    assert reason.effect == ("track red" if effect == "track" else effect)
    assert decision.outcome is outcome
    assert reason.facts == {"workload.name": "test-model"}
    assert Decision.from_bytes(decision.to_bytes()) == decision


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("effect", ["deny", "warn", "track"])
def test_a_rule_that_stays_silent_changes_nothing(
    engine: CelEngine, request: pytest.FixtureRequest, effect: str
) -> None:
    decision = judge(same_rule(request, FALSE, effect), engine)
    assert (decision.outcome, decision.track) == (Outcome.ALLOW, Track.GREEN)


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("effect", ["deny", "warn", "track"])
@pytest.mark.parametrize("condition", [MISSING, WRONG])
def test_a_fact_that_is_missing_or_of_another_type_denies(
    engine: CelEngine, request: pytest.FixtureRequest, effect: str, condition: dict[str, str]
) -> None:
    decision = judge(same_rule(request, condition, effect), engine)
    assert decision.outcome is Outcome.DENY
    assert any(reason.error for reason in decision.reasons)


@pytest.mark.requirement("P-1")
def test_the_same_release_gives_the_same_bytes(engine: CelEngine, request: pytest.FixtureRequest) -> None:
    policy = same_rule(request, TRUE, "deny")
    assert judge(policy, engine).to_bytes() == judge(policy, engine).to_bytes()


# Rego alone


@pytest.fixture
def regorus() -> CelEngine:
    return CelEngine(RegoRules().reasons)


FACTS = {
    "workload": {"name": "m"},
    "release": {"first": False},
    "gates": {"bias": "PASSED"},
    "limits": {"change": 0.1},
}


def refused(text: str) -> str:
    with pytest.raises((ConfigurationError, InvalidInputError)) as caught:
        RegoRules().reasons(with_rego(text), FactSet(dict(FACTS)))
    return str(caught.value)


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('deny contains "x" if time.now_ns() > 0', "time.now_ns"),
        ('deny contains "x" if http.send({"method": "get", "url": "http://x"})', "http.send"),
        ('deny contains "x" if rand.intn("x", 2) == 1', "rand.intn"),
        ('deny contains "x" if opa.runtime().env', "opa.runtime"),
        ('deny contains "x" if nothing.like(this)', "nothing.like"),
        ('deny contains "x" if print("x")', "print"),
        ('deny contains "x" if input.workload.nam == "x"', "did you mean 'workload.name'?"),
        ('deny contains "x" if input["workload"]["nam"] == "x"', "did you mean 'workload.name'?"),
        ('deny contains "x" if { some k; input.workload[k] == "x" }', "group of facts"),
        ('deny contains "x" if { w := input.workload; w.nam == "x" }', "group of facts"),
        ('deny contains "x" if { i := input; i.workload.nam }', "whole input"),
        ('deny contains "x" if data.other.thing', "no data.other.thing"),
        ('import input.workload as w\ndeny contains "x" if w.nam == "y"', "cannot be imported"),
        ("allow := true", "no rule deny, warn or track"),
        ('deny[msg] { msg := "x" }', "`if` keyword"),
        ("hello world", "Rego"),
        ('f(x) := f(x + 1)\ndeny contains "x" if f(1) > 1', "died"),
        ('p if q\nq if p\ndeny contains "x" if p', "recursion"),
        ('deny contains "x" if regex.match("(a{1000}){1000}", "a")', "invalid regex"),
        ('deny contains "x" if 1 / 0 > 1', "divide by zero"),
        ('deny := "a"\ndeny := "b" if true', "conflicts"),
        ('deny contains {"msg": 5}', "msg is no text"),
        ('deny contains {"msg": "x", "id": "A B"}', "is not like my-rule"),
        ('deny contains {"mesage": "x"}', "unknown field 'mesage'"),
        ("deny contains 5", "msg is no text"),
        ('track := "pink"', "is none of green, yellow, red"),
        ('deny contains sprintf("%d", [n]) if some n in numbers.range(1, 500)', "the limit is 100"),
    ],
)
def test_hostile_rego_is_refused_and_never_silent(text: str, words: str) -> None:
    assert words in refused(text)


@pytest.mark.requirement("P-1")
def test_rego_whose_answer_is_ten_megabytes_is_refused() -> None:
    long = f's := "{"y" * 900}"\nlong := concat("", [s | numbers.range(1, 11000)[_]])\ndeny contains long'
    assert "the answer has" in refused(long)


@pytest.mark.requirement("P-1")
def test_ten_megabytes_of_facts_end_with_an_answer(regorus: CelEngine) -> None:
    wide = {"candidate": {"features": [f"feature-{number:020}" for number in range(350_000)]}}
    policy = with_rego('deny contains "wide" if count(input.candidate.features) > 100')
    assert [reason.message for reason in RegoRules().reasons(policy, FactSet(wide))] == ["wide"]


@pytest.mark.requirement("P-1")
@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        (
            "r := numbers.range(1, 3000)\n"
            'deny contains "x" if count([1 | some i in r; some j in r; some k in r; i == k]) < 1'
        ),
        'deny contains "x" if count(numbers.range(1, 100000000)) == 1',
        "deny contains " + "[" * 5_000 + "1" + "]" * 5_000,
    ],
)
def test_rego_that_would_not_end_or_takes_all_memory_is_ended(text: str, regorus: CelEngine) -> None:
    decision = judge(with_rego(text), regorus)
    assert decision.outcome is Outcome.DENY
    assert any(reason.error and reason.rule == "rego" for reason in decision.reasons)
    assert judge(with_rego('warn contains "fine"'), regorus).outcome is Outcome.ALLOW, (
        "the next one is judged"
    )


@pytest.mark.requirement("P-1")
def test_a_group_with_any_names_may_be_walked_through() -> None:
    text = 'deny contains msg if { some gate, verdict in input.gates; verdict == "PASSED"; msg := gate }'
    (reason,) = RegoRules().reasons(with_rego(text), FactSet(dict(FACTS)))
    assert reason.message == "bias"


@pytest.mark.requirement("P-1", "T-3")
def test_what_a_first_release_cannot_have_is_no_missing_fact() -> None:
    policy = with_rego('deny contains "x" if { not input.release.first; input.change.architecture }')
    first = {**FACTS, "release": {"first": True}}
    assert RegoRules().reasons(policy, FactSet(first)) == []
    with pytest.raises(InvalidInputError, match=r"not measured: change\.architecture"):
        RegoRules().reasons(policy, FactSet(dict(FACTS)))


def test_helpers_stand_in_packages_of_their_own() -> None:
    policy = with_rego(
        'import data.airlock.lib\n\ndeny contains "x" if lib.long(input.workload.name)\n',
        **{"lib.rego": "package airlock.lib\n\nimport rego.v1\n\nlong(text) if count(text) > 0\n"},
    )
    assert [reason.message for reason in RegoRules().reasons(policy, FactSet(dict(FACTS)))] == ["x"]


@pytest.mark.requirement("P-1")
def test_tests_in_rego_are_run_and_a_silent_one_is_red() -> None:
    tests = (
        "package airlock_test\n\nimport rego.v1\nimport data.airlock\n\n"
        'test_fires if count(airlock.deny) == 1 with input as {"workload": {"name": "m"}}\n'
        'test_silent if count(airlock.deny) == 1 with input as {"workload": {"name": "n"}}\n'
        'test_false := false\ntest_error if to_number("x") == 1\n'
    )
    policy = with_rego('deny contains "x" if input.workload.name == "m"', **{"a_test.rego": tests})
    problems = {name.rpartition(".")[2]: problem for _, name, problem in RegoRules().tests(policy)}
    assert problems["test_fires"] == ""
    assert problems["test_silent"] == "it has no value"
    assert problems["test_false"] == "it is False"
    assert "could not parse" in problems["test_error"]


def test_the_digest_of_a_policy_covers_its_rego() -> None:
    assert with_rego("deny := false").digest != with_rego("deny := false # not").digest


def test_one_id_for_two_rules_denies(regorus: CelEngine) -> None:
    policy = with_rego('warn contains {"id": "never", "msg": "x"}')
    decision = judge(policy, regorus)
    assert decision.outcome is Outcome.DENY
    assert "belongs to a rule in YAML and to one in Rego" in decision.sentence


def test_an_engine_without_rego_never_skips_it() -> None:
    assert judge(with_rego("deny := false"), CelEngine()).outcome is Outcome.DENY


def test_a_killed_child_is_replaced() -> None:
    process = RegoProcess()
    modules = {"a.rego": "package airlock\n\ndeny := true\n"}
    assert process.ask("judge", modules=modules, facts={}) == {"deny": True}
    child = process._child
    assert child is not None
    child.kill()
    child.wait()
    assert process.ask("judge", modules=modules, facts={}) == {"deny": True}
    process.close()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airlock.adapters.rego.process.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"airlock-governance\[rego\]"):
        RegoProcess().ask("judge", modules={}, facts={})


@pytest.mark.requirement("P-1")
def test_the_example_of_the_guide_is_right() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    text = guide.split("```rego\n")[1].split("```")[0]
    policy = make_policy(rego={"example.rego": text})
    wide = {"candidate": {"features": [str(number) for number in range(101)]}}
    assert RegoRules().objections(policy) == ()
    found = [(reason.rule, reason.effect) for reason in RegoRules().reasons(policy, FactSet(wide))]
    assert found == [("too-many-features", "deny"), ("wide-model", "track red")]
    assert RegoRules().reasons(policy, FactSet(MODELS)) == []


# The OPA server


def test_files_are_put_under_the_digest_and_only_code_is_renamed() -> None:
    text = 'package airlock # package airlock\nimport data.airlock.lib\nx := "data.airlock" if data.airlock.y'
    assert renamed(text, "p") == (
        'package p # package airlock\nimport data.p.lib\nx := "data.airlock" if data.p.y'
    )


@pytest.mark.requirement("P-2")
def test_two_versions_on_one_server_do_not_mix(opa: tuple[str, type[FakeOpa]]) -> None:
    engine = CelEngine(RegoRules(OpaServer(opa[0])).reasons)
    strict, lax = with_rego('deny contains "x" if true'), with_rego('deny contains "x" if false')
    assert [judge(policy, engine).outcome for policy in (strict, lax, strict)] == [
        Outcome.DENY,
        Outcome.ALLOW,
        Outcome.DENY,
    ]
    opa[1].policies.clear()  # the server was started anew
    assert judge(strict, engine).outcome is Outcome.DENY
    assert judge(lax, engine).outcome is Outcome.ALLOW


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    "broken", ['{"result": 5}', "{}", '{"result": {"deny": 5}}', '{"code": "internal_error"}']
)
def test_nonsense_of_a_server_denies(opa: tuple[str, type[FakeOpa]], broken: str) -> None:
    opa[1].broken = broken
    engine = CelEngine(RegoRules(OpaServer(opa[0])).reasons)
    assert judge(with_rego('deny contains "x" if false'), engine).outcome is Outcome.DENY


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("broken", ["[]", '{"code": "busy"}'])
def test_a_server_that_cannot_answer_decides_nothing(opa: tuple[str, type[FakeOpa]], broken: str) -> None:
    opa[1].broken = broken
    engine = CelEngine(RegoRules(OpaServer(opa[0])).reasons)
    with pytest.raises(UnavailableError):
        judge(with_rego('deny contains "x" if false'), engine)


@pytest.mark.requirement("P-1")
def test_a_server_that_is_not_there_decides_nothing() -> None:
    engine = CelEngine(RegoRules(OpaServer("http://127.0.0.1:9", seconds=1)).reasons)
    with pytest.raises(UnavailableError, match="OPA server does not answer"):
        judge(with_rego('deny contains "x" if false'), engine)


# CEL alone


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    "condition",
    [
        "a" * 10_000,
        "(" * 1_000 + "true" + ")" * 1_000,
        "!" * 1_000 + "true",
        "-" * 500 + "1 == 1",
        "true ? " * 300 + "true" + " : true" * 300,
        "[1].all(a, [1].all(b, [1].all(c, true)))",
        'workload.name.matches("' + "(a|b|c)*" * 100 + '")',
        'workload.name.matches("(a{99}){99}{99}{99}{99}")',
        'workload.name.matches("x{100000}")',
        "workload.name.matches(workload.owner)",
        "now() > 1",
        'timestamp("2026-01-01T00:00:00Z") > timestamp("2025-01-01T00:00:00Z")',
        "read('/etc/passwd') == ''",
        "1 / 0 == 1",
        "[1][5] == 1",
        "int(workload.name) == 1",
        "workload",
        "5",
        "'true'",
        "null",
        "",
        "true // and \\",
        "__f0",
        "has(workload)",
        "[1].all(__f0, true)",
    ],
)
def test_a_hostile_condition_denies(condition: str) -> None:
    rule = make_rule("hostile", condition or " ", Effect(warn=True))
    decision = judge(make_policy(rule), CelEngine())
    if condition == "true // and \\":
        assert decision.outcome is Outcome.ALLOW, "a comment is no attack"
    else:
        assert decision.outcome is Outcome.DENY
        assert decision.sentence.startswith("rule hostile could not be evaluated")


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ('candidate.features.exists(a, a == "z")', "may loop over 100000"),
        ('candidate.features.filter(a, a != "z").size() > 0', "may loop over 100000"),
        ("candidate.features.size() < 1", ""),
    ],
)
def test_ten_megabytes_of_facts_are_not_looped_over(condition: str, words: str) -> None:
    facts = FactSet({"candidate": {"features": [f"feature-{number:020}" for number in range(350_000)]}})
    rule = make_rule("long", condition, Effect(deny=True))
    (answer,) = CelEngine().begin(make_policy(rule), facts).answers("deny")
    if words:
        assert isinstance(answer, InvalidInputError)
        assert words in str(answer)
    else:
        assert answer is False


@pytest.mark.requirement("P-1")
def test_loops_in_each_other_run_over_short_lists_only() -> None:
    both = "candidate.features.all(a, candidate.features.exists(b, b == a))"
    rule = make_rule("pairs", both, Effect(warn=True))
    policy = make_policy(rule)
    for count, fine in ((1_000, True), (1_001, False)):
        facts = FactSet({"candidate": {"features": [str(n % 7) for n in range(count)]}})
        session = CelEngine().begin(policy, facts)
        if fine:
            assert session.fires(rule)
        else:
            with pytest.raises(InvalidInputError, match="may loop over 1000"):
                session.fires(rule)


ASKED = [
    "true",
    "false // a comment takes the rest of its line",
    'workload.name == "test-model"',
    "limits.change > 0.01 && limits.change < 0.5",
    "candidate.features.exists(a, candidate.features.exists(b, a != b))",
    "candidate.features.all(a, a != 'z')",
    "has(risk.z) && risk.z > 1.0",
    "has(limits.change)",
    # Errors of every kind.
    "candidate.threshold > 0.1",
    "workload.name > 1",
    "workload.name",
    "now() > 1",
    "1 / 0 == 1",
    "(",
    # Sizes of lists are handed over as numbers; those of anything else are not.
    "size(candidate.features) == 2 && candidate.features.size() < 3 && candidate.features[1] == 'b'",
    "candidate.features.exists(candidate, size(candidate) == 1) && size(change.signature) == 0",
    "size(workload.name) == 10 && size([candidate.features]) == 1",
    "size(candidate.steps) == 0",
]
SIZES = [14, 15, 16]


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    "chosen", [range(8), range(14), [0, 9], [10, 0], [4, 8, 1], [13, 2], [11], [5], [14, 15, 16], [14, 17]]
)
def test_rules_asked_at_once_answer_as_they_do_alone(chosen: list[int]) -> None:
    rules = [make_rule(f"rule-{number}", ASKED[number], Effect(warn=True)) for number in chosen]
    policy = make_policy(*rules)
    for limit in (0.05, 0.9):  # the policy's own, and one that a rule's test brings
        facts = {**FACTS, "limits": {"change": limit}, "candidate": {"features": ["a", "b"]}}
        facts |= {"workload": {"name": "test-model"}, "change": {"signature": []}}
        session = CelEngine().begin(policy, FactSet(facts))
        told = {rule.id: answer for rule, answer in zip(rules, session.answers("warn"), strict=True)}
        for rule in rules:
            alone = CelEngine().begin(policy, FactSet(facts))
            answer = told[rule.id]
            if isinstance(answer, Exception):
                with pytest.raises(type(answer)) as caught:
                    alone.fires(rule)
                assert str(caught.value) == str(answer)
            else:
                assert answer is alone.fires(rule)
        if "rule-3" in told:
            assert told["rule-3"] is (limit == 0.05)
        assert all(told.get(f"rule-{number}", True) is True for number in SIZES)


@pytest.mark.requirement("P-1")
def test_a_condition_cannot_close_the_list_it_is_asked_in() -> None:
    rules = [
        make_rule(f"rule-{number}", condition, Effect(deny=True))
        for number, condition in enumerate(["true", "false), (false", "true\n), (\nfalse", "true // ]"])
    ]
    answers = CelEngine().begin(make_policy(*rules), FactSet(dict(FACTS))).answers("deny")
    assert [answer if isinstance(answer, bool) else "error" for answer in answers] == [
        True,
        "error",
        "error",
        True,
    ]


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("sentence", ["{workload.name|percent}", "{limits.change|list}", "{x|nonsense}"])
@pytest.mark.parametrize("fires", ["true", "false"])
def test_a_rule_whose_sentence_cannot_be_written_denies(sentence: str, fires: str) -> None:
    rule = make_rule("odd", fires, Effect(warn=True), because=sentence, otherwise=sentence)
    decision = judge(make_policy(rule), CelEngine())
    assert decision.outcome is Outcome.DENY
    assert decision.sentence.startswith("rule odd could not be evaluated")


@pytest.mark.requirement("P-1", "T-5")
def test_a_tier_rule_is_told_with_what_was_known_when_it_was_asked() -> None:
    rule = make_rule(
        "early", "!has(risk.tier)", Effect(tier=Tier.HIGH), because="the tier is {risk.tier} to it"
    )
    decision = judge(make_policy(rule), CelEngine())
    (reason,) = [reason for reason in decision.reasons if reason.rule == "early"]
    assert (reason.message, reason.facts) == ("the tier is unknown to it", {})
    assert decision.tier is Tier.HIGH


@pytest.mark.requirement("P-1")
def test_a_rule_expires_at_the_end_of_its_last_day() -> None:
    for day, outcome in (("2025-12-31", Outcome.DENY), ("2026-01-01", Outcome.ALLOW)):
        rule = make_rule("old", "false", Effect(track=Track.RED), expires=day)
        decision = judge(make_policy(rule), CelEngine())
        assert decision.outcome is outcome
        assert decision.as_of == TODAY
