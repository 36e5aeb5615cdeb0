use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

#[test]
fn everybody_we_know_is_authenticated() {
    for (name, groups, expected) in [
        ("ann", vec![], vec![AUTHENTICATED]),
        ("ann", vec!["g"], vec!["g", AUTHENTICATED]),
        ("ann", vec![AUTHENTICATED], vec![AUTHENTICATED]),
        ("ann", vec![UNAUTHENTICATED], vec![UNAUTHENTICATED]),
        (ANONYMOUS, vec![], vec![]),
    ] {
        assert_eq!(authenticated(User::new(name, &groups)).groups, expected);
    }
    assert_eq!(anonymous().groups, [UNAUTHENTICATED]);
}

#[test]
fn a_token_is_found_where_clients_put_it() {
    for (value, token) in [
        ("Bearer abc", Some("abc")),
        ("  bearer abc  ", Some("abc")),
        ("BEARER abc def", Some("abc")),
        ("Bearer  abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("", None),
    ] {
        assert_eq!(bearer_token(Headers(&[("authorization", value)])), token, "{value}");
    }
}

#[test]
fn a_web_socket_carries_its_token_beside_a_protocol() {
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("secret?"));
    let read = |values: &[&str]| {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("Sec-WebSocket-Protocol", *value)).collect();
        web_socket_token(Headers(&headers)).map(|found| found.map(|found| (found.token, found.protocols)))
    };
    let found = Ok(Some(("secret?".to_owned(), vec!["v4.channel.k8s.io".to_owned()])));
    assert_eq!(read(&[&format!("{token}, v4.channel.k8s.io")]), found);
    assert_eq!(read(&["v4.channel.k8s.io", &token]), found);
    assert_eq!(read(&["v4.channel.k8s.io"]), Ok(None));
    assert_eq!(read(&[PREFIX, "x"]), Ok(None));
    assert_eq!(read(&[&token]), Err(BearerError::Alone));
    assert_eq!(read(&[&token, &token, "x"]), Err(BearerError::Several));
    assert_eq!(read(&[&format!("{PREFIX}!"), "x"]), Err(BearerError::Encoding));
    assert_eq!(read(&[&format!("{PREFIX}YQ=="), "x"]), Err(BearerError::Encoding));
    assert_eq!(read(&[&format!("{PREFIX}_w"), "x"]), Err(BearerError::Encoding));
}

fn secret(changes: &[(&str, &str)]) -> Value {
    let mut data = json!({});
    let defaults =
        [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
    for (key, value) in defaults.iter().chain(changes) {
        data[*key] = STANDARD.encode(value).into();
    }
    json!({"type": "bootstrap.kubernetes.io/token", "metadata": {}, "data": data})
}

#[test]
fn a_bootstrap_token_has_one_form() {
    assert!(BootstrapToken::parse("abcdef.0123456789abcdef").is_some());
    for token in ["", ".", "abcdef", "abcdef.0123456789abcde", "Abcdef.0123456789abcdef", "abcdef.0123456789abcdef0"] {
        assert!(BootstrapToken::parse(token).is_none(), "{token}");
    }
}

#[test]
fn a_bootstrap_token_is_worth_what_its_secret_says() {
    let token = BootstrapToken::parse("abcdef.0123456789abcdef").unwrap();
    assert_eq!(token.secret_name(), "bootstrap-token-abcdef");
    let groups = |secret: &Value| token.user(secret, 1_000_000_000).map(|user| user.groups);
    let plain = Some(vec!["system:bootstrappers".to_owned()]);
    assert_eq!(token.user(&secret(&[]), 0).unwrap().name, "system:bootstrap:abcdef");
    for (changes, expected) in [
        (vec![], plain.clone()),
        (vec![("token-secret", "0123456789abcdeX")], None),
        (vec![("token-secret", "")], None),
        (vec![("token-id", "abcdeX")], None),
        (vec![("usage-bootstrap-authentication", "True")], None),
        (vec![("expiration", "2001-09-09T01:46:41Z")], plain.clone()),
        (vec![("expiration", "2001-09-09T01:46:40Z")], None),
        (vec![("expiration", "2001-09-09T03:46:41+02:00")], plain),
        (vec![("expiration", "tomorrow")], None),
        (vec![("auth-extra-groups", "system:masters")], None),
        (vec![("auth-extra-groups", "system:bootstrappers:")], None),
        (vec![("auth-extra-groups", "system:bootstrappers:a,")], None),
        (
            vec![("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a:x-1")],
            Some(["", ":a:x-1", ":b"].map(|rest| format!("system:bootstrappers{rest}")).to_vec()),
        ),
    ] {
        assert_eq!(groups(&secret(&changes)), expected, "{changes:?}");
    }
    let mut other = secret(&[]);
    other["type"] = json!("Opaque");
    assert_eq!(groups(&other), None);
    let mut leaving = secret(&[]);
    leaving["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
    assert_eq!(groups(&leaving), None);
    assert_eq!(groups(&Value::Null), None);
}

#[test]
fn a_certificate_names_its_holder() {
    let [name, group, uid] = ["2.5.4.3", "2.5.4.10", "1.3.6.1.4.1.57683.2"];
    let digest = [0xab; 32];
    let user = user_of_certificate(&[(group, "a"), (name, "ann"), (group, "b"), (uid, "7")], &digest).unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
    assert_eq!(user.groups, ["a", "b"]);
    let credential = format!("X509SHA256={}", "ab".repeat(32));
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], [credential]);
    assert_eq!(user_of_certificate(&[(group, "a")], &digest), Ok(None));
    assert_eq!(user_of_certificate(&[(name, "")], &digest), Ok(None));
    let several = user_of_certificate(&[(name, "ann"), (uid, "7"), (uid, "8")], &digest);
    assert_eq!(several, Err(CertificateError::SeveralUids));
    assert_eq!(user_of_certificate(&[(name, "ann"), (uid, "")], &digest), Err(CertificateError::EmptyUid));
}

#[test]
fn a_front_proxy_says_whom_it_speaks_for() {
    let mut proxy = FrontProxy::default();
    assert!(proxy.trusts("anyone"));
    proxy.allowed_names = vec!["front".to_owned()];
    assert!(proxy.trusts("front") && !proxy.trusts("anyone"));
    let user = proxy.user(Headers(&[
        ("x-remote-user", "ann"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Group", "a"),
        ("x-remote-group", ""),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-Acme.com%2FScope", "1"),
        ("x-remote-extra-acme.com%2fscope", "2"),
        ("X-Remote-Extra-50%", "half"),
    ]));
    let user = user.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
    assert_eq!(user.groups, ["a", "b"]);
    assert_eq!(user.extra["acme.com/scope"], ["1", "2"]);
    assert_eq!(user.extra["50%"], ["half"]);
    assert_eq!(proxy.user(Headers(&[("X-Remote-Group", "a")])), None);
    assert!(proxy.is_consumed("x-remote-extra-anything") && proxy.is_consumed("X-REMOTE-USER"));
    assert!(!proxy.is_consumed("X-Remote-Use") && !proxy.is_consumed("Authorization"));
}

#[test]
fn impersonation_asks_for_each_part_of_the_other_user() {
    let read = |headers: &[(&str, &str)]| Impersonation::from_headers(Headers(headers)).unwrap().unwrap();
    let asked = |found: &Impersonation| -> Vec<String> {
        let line = |request: &RequestLine| [request.0, request.1, request.2, request.3].join("|");
        let requests = found.requests.iter();
        requests.map(|one| line(&(&one.group, &one.resource, &one.subresource, &one.name))).collect()
    };
    type RequestLine<'a> = (&'a str, &'a str, &'a str, &'a str);

    let full = read(&[
        ("Impersonate-User", "ann"),
        ("impersonate-group", "g"),
        ("Impersonate-Group", "h"),
        ("Impersonate-Extra-Scope%2Fx", "1"),
        ("Impersonate-Uid", "7"),
    ]);
    let expected = [
        "|users||ann",
        "|groups||g",
        "|groups||h",
        "authentication.k8s.io|userextras|scope/x|1",
        "authentication.k8s.io|uids||7",
    ];
    assert_eq!(asked(&full), expected);
    assert!(full.requests.iter().all(|request| request.verb == "impersonate" && request.is_resource));
    assert_eq!(full.user.groups, ["g", "h", AUTHENTICATED]);
    assert_eq!((full.user.uid.as_str(), &full.user.extra["scope/x"]), ("7", &vec!["1".to_owned()]));

    let robot = read(&[("Impersonate-User", "system:serviceaccount:a:robot")]);
    assert_eq!(asked(&robot), ["|serviceaccounts||robot"]);
    assert_eq!(robot.requests[0].namespace, "a");
    assert_eq!(robot.user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
    let odd = read(&[("Impersonate-User", "system:serviceaccount:a:b:c")]);
    assert_eq!(asked(&odd), ["|users||system:serviceaccount:a:b:c"]);
    assert_eq!(read(&[("Impersonate-User", ANONYMOUS)]).user.groups, [UNAUTHENTICATED]);
    let unknown = read(&[("Impersonate-User", "ann"), ("Impersonate-Group", UNAUTHENTICATED)]);
    assert_eq!(unknown.user.groups, [UNAUTHENTICATED]);
}

#[test]
fn impersonation_needs_a_user() {
    assert_eq!(Impersonation::from_headers(Headers(&[("Accept", "*/*")])), Ok(None));
    let error = Impersonation::from_headers(Headers(&[("Impersonate-Group", "g")])).unwrap_err();
    assert_eq!(error.to_string(), "requested [{Group  g    }] without impersonating a user");
    let error = Impersonation::from_headers(Headers(&[("Impersonate-Extra-A", "1"), ("Impersonate-Uid", "7")]));
    let printed = "requested [{UserExtra  1  authentication.k8s.io/v1  a} {UID  7  authentication.k8s.io/v1  }] without \
                   impersonating a user";
    assert_eq!(error.unwrap_err().to_string(), printed);
    assert!(Impersonation::is_consumed("impersonate-extra-x") && Impersonation::is_consumed("Impersonate-User"));
    assert!(!Impersonation::is_consumed("Impersonate"));
}

#[test]
fn a_file_of_tokens_names_users() {
    let text = "t1,ann,1\r\n\nt2,bob,2,\"g,h\"\n,nobody,3\n\"t\"\"3\",\"c,\nd\",,g,more\nt4,dan,\nt1,eve,5";
    let tokens = StaticTokens::parse(text).unwrap_or_default();
    for (token, name, uid, groups) in [
        ("t1", "eve", "5", vec![]),
        ("t2", "bob", "2", vec!["g", "h"]),
        ("t\"3", "c,\nd", "", vec!["g"]),
        ("t4", "dan", "", vec![]),
    ] {
        let user = tokens.user(token).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), (name, uid));
        assert_eq!(user.groups, groups);
    }
    assert_eq!(tokens.user(""), None);
    let error = |text| StaticTokens::parse(text).err();
    assert_eq!(error("t,a,1\nt,b"), Some(StaticTokenError::Columns { found: 2, record: 2 }));
    assert_eq!(error("t,a,"), None);
    for text in ["\"t,a,1", "t\"x,a,1", "\"t\"x,a,1"] {
        assert_eq!(error(text), Some(StaticTokenError::Quote { record: 1 }), "{text}");
    }
}

proptest! {
    #[test]
    fn no_file_of_tokens_is_too_odd(text in "[a,\"\n\r ]{0,40}") {
        if let Ok(tokens) = StaticTokens::parse(&text) {
            prop_assert_eq!(tokens.user(""), None);
        }
    }

    #[test]
    fn no_header_is_too_odd(name in "(X-Remote-|Impersonate-|Sec-WebSocket-Protocol|Authorization|User|Extra-|\\PC){0,6}", value in "(base64url.bearer.authorization.k8s.io.|system:serviceaccount:|%|\\PC){0,8}") {
        let pairs = [("Impersonate-User", value.as_str()), ("X-Remote-User", value.as_str()), (name.as_str(), value.as_str())];
        let headers = Headers(&pairs);
        match Impersonation::from_headers(headers) {
            Ok(found) => prop_assert_eq!(&found.map(|found| found.user.name).unwrap_or_default(), &value),
            Err(ImpersonationError::NoUser { .. }) => prop_assert!(value.is_empty()),
        }
        let proxied = FrontProxy::default().user(headers).map(|user| user.name).unwrap_or_default();
        prop_assert_eq!(&proxied, &value);
        prop_assert!(bearer_token(headers).is_none_or(|token| !token.is_empty()));
        prop_assert!(web_socket_token(headers).is_ok_and(|found| found.is_none()) || value.contains("base64url"));
        prop_assert!(!FrontProxy::default().is_consumed(&value) || value.to_lowercase().starts_with("x-remote-"));
    }
}
