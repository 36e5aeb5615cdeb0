//! Expressions over an object, with what the usual implementation says of them.

use std::sync::LazyLock;

use k3sd_objects::schema::{Arena, structural};
use proptest::prelude::*;
use serde_json::json;

use super::*;

static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    structural(&json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": {
            "name": { "type": "string", "maxLength": 10 },
            "free": { "type": "string" },
            "count": { "type": "integer" },
            "ratio": { "type": "number" },
            "on": { "type": "boolean" },
            "port": { "x-kubernetes-int-or-string": true },
            "since": { "type": "string", "format": "date-time" },
            "every": { "type": "string", "format": "duration" },
            "raw": { "type": "string", "format": "byte" },
            "tags": { "type": "array", "maxItems": 5, "items": { "type": "string", "maxLength": 5 } },
            "numbers": { "type": "array", "items": { "type": "integer" } },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "x-dash": { "type": "integer" },
            "namespace": { "type": "string" },
            "parts": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "string" } } } },
            "opaque": { "x-kubernetes-preserve-unknown-fields": true },
        } },
    } }))
    .unwrap()
});

fn variables() -> [Variable<'static>; 1] {
    [Variable { name: "self", schema: ARENA.root(), optional: false }]
}

fn compile(text: &str) -> Result<Program, CompileError> {
    Program::compile(text, &variables(), Wanted::Bool)
}

fn object() -> Json {
    json!({ "apiVersion": "v1", "kind": "K", "metadata": { "name": "the-name" }, "spec": {
        "name": "abc", "count": 3, "ratio": 2, "on": true, "port": "80%", "since": "2024-01-02T03:04:05Z",
        "every": "1h30m", "raw": "aGk=", "tags": ["a", "b"], "numbers": [1, 2, 3],
        "labels": { "app": "web", "a.b/c": "d" }, "x-dash": 7, "namespace": "ns",
        "parts": [{ "n": "x" }, { "n": "y" }],
    } })
}

fn evaluate(text: &str, limit: u64) -> (Result<Outcome, EvalError>, u64) {
    let program = compile(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let object = object();
    program.run(&[Given { name: "self", schema: ARENA.root(), value: Some(&object), optional: false }], limit)
}

#[test]
fn expressions_are_true() {
    for text in [
        // Literals and operators.
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 % 4 == 3 && -7 / 2 == -3 && 0x1F == 31 && 1u + 2u == 3u",
        "1.5e1 == 15.0 && 1 < 1.5 && 2u > 1 && dyn(1) == 1.0 && !(2 <= 1)",
        r#"'a\n' == "a\x0a" && r'\n'.size() == 2 && '\u00e4'.size() == 1 && b'\xff' != b'a' && """a"b""" == 'a"b'"#,
        "true ? 1 == 1 : false",
        "[1, 2] + [3] == [1, 2, 3] && {'a': 1}['a'] == 1 && 2 in [1, 2] && 'a' in {'a': 1} && [1, 2][1] == 2",
        "type(1) == int && type('') == string && type([]) == list",
        "int('42') == 42 && string(42) == '42' && double('1.5') == 1.5 && uint(3) == 3u && bool('true') && string(b'hi') == 'hi'",
        // The object.
        "self.spec.name == 'abc' && self.metadata.name == 'the-name' && self.spec.count == 3 && self.spec.ratio == 2.0",
        "self.spec.x__dash__dash == 7 && self.spec.__namespace__ == 'ns' && self.spec.labels['a.b/c'] == 'd'",
        "has(self.spec.name) && !has(self.spec.free) && self.spec.on && self.spec.port == '80%' && type(self.spec.port) == string",
        "self.spec.since == timestamp('2024-01-02T03:04:05Z') && self.spec.every == duration('90m') && self.spec.raw == b'hi'",
        "self.spec.since.getFullYear() == 2024 && self.spec.since.getMonth() == 0 && self.spec.since.getHours('+01:00') == 4",
        "self.spec.since + duration('1h') > self.spec.since && self.spec.every.getMinutes() == 90 && self.spec.since.getDayOfWeek() == 2",
        "self.spec.since.getHours('Europe/Berlin') == 4",
        // Macros.
        "self.spec.tags.all(t, t.size() == 1) && self.spec.tags.exists(t, t == 'b') && self.spec.numbers.exists_one(n, n > 2)",
        "self.spec.numbers.map(n, n * 2) == [2, 4, 6] && self.spec.numbers.filter(n, n > 1) == [2, 3]",
        "self.spec.numbers.map(n, n > 1, n * 10) == [20, 30] && self.spec.labels.all(k, k != '') && self.spec.parts.all(p, has(p.n))",
        "self.spec.numbers.all(i, n, n == i + 1) && self.spec.labels.exists(k, v, k == 'app' && v == 'web')",
        "self.spec.numbers.transformList(i, n, n - i) == [1, 1, 1] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        // Errors that don't matter.
        "(1 / 0 == 1) || true",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(n, 1 / n == 1)",
        // Optional values.
        "self.spec.?free.orValue('x') == 'x' && self.spec.?name.hasValue() && self.spec.labels[?'no'].orValue('d') == 'd'",
        "self.?spec.?free == optional.none() && optional.of(1).optMap(x, x + 1).value() == 2 && [?self.spec.?free, 'a'] == ['a']",
        "optional.of(1).or(optional.of(2)).value() == 1 && self.spec.tags[?9].orValue('none') == 'none'",
        // Text.
        "'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'a,b'.split(',') == ['a', 'b']",
        "'Hello'.lowerAscii() == 'hello' && ' a '.trim() == 'a' && 'tacocat'.substring(4) == 'cat' && 'abc'.substring(0, 1) == 'a'",
        "'aaa'.replace('a', 'b', 2) == 'bba' && ['a', 'b'].join('-') == 'a-b' && 'abc'.reverse() == 'cba' && 'abc'.split('', 2) == ['a', 'bc']",
        "'%s is %d and %.2f, %x %%'.format(['a', 3, 1.5, 255]) == 'a is 3 and 1.50, ff %' && strings.quote('a\"') == '\"a\\\\\"\"'",
        "'abc'.matches('^a.c$') && 'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'x'.contains('') && 'ab'.startsWith('a')",
        // Lists and sets.
        "[1, 2].isSorted() && [1, 2, 3].sum() == 6 && [3, 1].min() == 1 && ['a', 'b'].max() == 'b' && [1, 2, 1].lastIndexOf(1) == 2",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])",
        "[3, 1].sort() == [1, 3] && [1, 1].distinct() == [1] && [1, 2, 3].slice(1, 2) == [2] && [[1], [2]].flatten() == [1, 2] && lists.range(2) == [0, 1]",
        // Kubernetes.
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1500m').add(quantity('500m')).asInteger() == 2 && !isQuantity('x')",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('1.2.3') && ip('127.0.0.1').isLoopback() && string(ip('::1')) == '::1'",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "url('https://a.b:80/c?d=e').getHostname() == 'a.b' && url('https://a.b:80/c?d=e').getPort() == '80' && url('/x?d=e').getQuery()['d'] == ['e'] && isURL('http://x')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0-rc.1') && !isSemver('1') && semver('v1.2', true).minor() == 2",
        "!format.dns1123Label().validate('ok').hasValue() && format.named('uri').value().validate('no uri').hasValue()",
    ] {
        assert_eq!(evaluate(text, 1_000_000).0, Ok(Outcome::Bool(true)), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_runs() {
    for (text, what) in [
        (
            "self.spec.nothing == 1",
            "ERROR: <input>:1:10: undefined field 'nothing'\n | self.spec.nothing == 1\n | .........^",
        ),
        ("self.spec.name == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.spec.name.foo()", "undeclared reference to 'foo' (in container '')"),
        ("self.spec.name.size(1) == 1", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("other == 1", "undeclared reference to 'other' (in container '')"),
        ("self.spec.opaque == 1", "undefined field 'opaque'"),
        ("self.metadata.labels == {}", "undefined field 'labels'"),
        ("self.spec.count", "cel expression must evaluate to a bool"),
        (
            "self.spec.count.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.spec.count.x == 1", "type 'int' does not support field selection"),
        ("[1, 'a'] == []", "expected type 'int' but found 'string'"),
        ("'a'.matches('(')", "invalid matches argument: error parsing regexp: "),
        ("1 +", "Syntax error: mismatched input '<EOF>' expecting"),
        ("has(self)", "invalid argument to has() macro"),
        ("'a", "Syntax error: token recognition error at: '''"),
        ("self.spec.tags.all(x.y, true)", "argument must be a simple name"),
        ("for == 1", "reserved identifier: for"),
        ("99999999999999999999 == 1", "invalid int literal"),
        ("self.spec.name\n == 1", "ERROR: <input>:2:2: found no matching overload"),
    ] {
        let error = compile(text).unwrap_err().to_string();
        assert!(error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    for (text, what) in [
        ("self.spec.free == ''", "no such key: free"),
        ("1 / (self.spec.count - 3) == 1", "division by zero"),
        ("self.spec.numbers[9] == 1", "index out of bounds: 9"),
        ("self.spec.labels['no'] == ''", "no such key: no"),
        ("self.spec.port > 1", "no such overload"),
        ("9223372036854775807 + self.spec.count == 1", "integer overflow"),
        ("int(self.spec.name) == 1", "type conversion error from 'string' to 'int': abc"),
        ("quantity(self.spec.name).sign() == 1", "quantities must match"),
        ("optional.none().value() == 1", "optional.none() dereference"),
    ] {
        let error = evaluate(text, 1_000_000).0.unwrap_err().to_string();
        assert!(error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn estimates_grow_with_what_a_schema_allows() {
    let cost = |text: &str| compile(text).unwrap().cost_max();
    // Two reads, and a look at what can't be longer than 40 bytes.
    assert_eq!(cost("self.spec.name == 'abc'"), 4);
    // Five turns of a few units each; without a limit there are as many as a request holds.
    assert!(cost("self.spec.tags.all(t, t == 'a')") < 100);
    assert!(cost("self.spec.numbers.all(n, n > 0)") > 1_000_000);
    assert!(cost("self.spec.parts.all(p, self.spec.parts.all(q, p == q))") > 100_000_000_000);
    assert!(cost("self.spec.free.matches('^[a-z]+$')") > 300_000);
}

#[test]
fn no_evaluation_costs_more_than_its_limit() {
    for text in [
        "lists.range(100000).all(a, lists.range(100000).all(b, a + b >= 0))",
        "lists.range(20).map(a, lists.range(50000)).size() == 1",
        "'aaaaaaaaaaaaaaaaaaaa'.replace('', 'bbbbbbbbbbbbbbbbbbbb').replace('', 'cccccccccccccccccccccccc').replace('', 'dddddddddddddddddddd').replace('', 'eeeeeeeeeeeeeeeeeeee').replace('', 'ffffffffffffffffffffff').replace('', 'gggggggggggggggggggggg').size() == 0",
        "lists.range(9999999).size() == 0",
        "lists.range(2000).all(a, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaab'.matches('(a|a)*' + string(a)) || true)",
    ] {
        let (answer, spent) = evaluate(text, 100_000);
        assert_eq!(answer, Err(EvalError::CostLimit), "{text}");
        assert!(spent < 20_000_000, "{text}: {spent}");
    }
    let (first, second) =
        (evaluate("self.spec.tags.all(t, t != 'c')", 1000), evaluate("self.spec.tags.all(t, t != 'c')", 1000));
    assert_eq!(first, second);
    assert!(first.1 <= compile("self.spec.tags.all(t, t != 'c')").unwrap().cost_max());
}

#[test]
fn deep_expressions_are_refused() {
    for text in [
        format!("{}1{} == 1", "(".repeat(5000), ")".repeat(5000)),
        "true".to_owned() + &" ? true : true".repeat(5000),
        "1".to_owned() + &" + 1".repeat(5000) + " == 1",
        format!("{}1{} == []", "[".repeat(5000), "]".repeat(5000)),
        "self".to_owned() + &".spec".repeat(5000),
        "x".repeat(200_000),
    ] {
        assert!(compile(&text).is_err());
    }
    // Many alternatives are not deep.
    assert!(compile(&("self.spec.count == 1".to_owned() + &" || self.spec.count == 1".repeat(2000))).is_ok());
}

proptest! {
    #[test]
    fn no_text_breaks_the_compiler(
        any: String,
        text in "[a-z.?!:,()\\[\\]{}'\"0-9=<>&|+*/% -]{0,40}",
        words in prop::collection::vec(prop::sample::select(vec![
            "self", ".spec", ".tags", ".all(x,", "x", ")", "(", "==", "&&", "||", "1", "'a'", "[", "]", "+", "?", ":", "{",
            "}", ".?", "has(", "size(", "!", "-", ".name", "optional.none()", "null", "in",
        ]), 0..20),
    ) {
        for text in [any, text, words.join(" ")] {
            if let Ok(program) = compile(&text) {
                let object = object();
                let given = Given { name: "self", schema: ARENA.root(), value: Some(&object), optional: false };
                let (_, spent) = program.run(&[given], 10_000);
                prop_assert!(spent < 20_000);
            }
        }
    }
}

#[test]
fn what_definitions_do_is_not_too_dear() {
    for text in [
        "isIP(self.spec.free) || isCIDR(self.spec.free)",
        "!isURL(self.spec.free) || url(self.spec.free).getHostname().endsWith('.example.com')",
        "self.spec.tags.join(',').size() < 100",
        "type(self.spec.port) == string ? self.spec.port.matches('^[0-9]+%$') : self.spec.port > 0",
        "self.spec.free.split('.').all(p, p != '')",
        "self.spec.free.lowerAscii() == self.spec.free",
    ] {
        let cost = compile(text).unwrap_or_else(|error| panic!("{error}")).cost_max();
        assert!(cost < 30_000_000, "{text}: {cost}");
    }
}
