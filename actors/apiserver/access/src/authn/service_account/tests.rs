use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn new_key() -> SigningKey {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    SigningKey::of_pem(&section("PRIVATE KEY", pkcs8.as_ref())).unwrap()
}

fn section(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}

/// What `openssl` answers in this directory; the words of the command line have no blanks in them.
fn openssl(directory: &std::path::Path, line: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn keys_are_read_in_every_form_and_are_the_same_to_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let run = |line: &str| String::from_utf8_lossy(&openssl(at, line)).into_owned();
    for (make, kind, algorithm) in [
        ("genrsa -traditional -out key 2048", "rsa", "RS256"),
        ("ecparam -name prime256v1 -genkey -out key", "ec", "ES256"),
        ("ecparam -name secp384r1 -genkey -noout -out key", "ec", "ES384"),
    ] {
        run(make);
        let key = SigningKey::of_pem(&std::fs::read_to_string(at.join("key")).unwrap()).unwrap();
        assert_eq!(key.public().algorithm().name(), algorithm);
        let again = SigningKey::of_pem(&run("pkcs8 -topk8 -nocrypt -in key")).unwrap();
        assert_eq!(again.public(), key.public());
        let mut forms = run("pkey -in key -pubout") + &run("req -x509 -key key -subj /CN=x -days 1");
        if kind == "rsa" {
            forms += &run("rsa -in key -RSAPublicKey_out");
        }
        let keys = PublicKey::all_of_pem(&forms).unwrap();
        assert!(keys.len() >= 2 && keys.iter().all(|public| public == key.public()));

        let info = openssl(at, "pkey -in key -pubout -outform DER");
        let digest = ring::digest::digest(&ring::digest::SHA256, &info);
        assert_eq!(key.public().id(), URL_SAFE_NO_PAD.encode(digest));
        assert!(key.public().verifies(b"a", &again.sign(b"a").unwrap()));
        assert!(!key.public().verifies(b"b", &again.sign(b"a").unwrap()));
        if kind == "rsa" {
            std::fs::write(at.join("text"), "a").unwrap();
            assert_eq!(openssl(at, "dgst -sha256 -sign key text"), key.sign(b"a").unwrap());
            let modulus = URL_SAFE_NO_PAD.decode(key.public().json_web_key()["n"].as_str().unwrap()).unwrap();
            let hex: String = modulus.iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(run("rsa -in key -modulus -noout").trim(), format!("Modulus={hex}"));
            assert_eq!(key.public().json_web_key()["e"], "AQAB");
        } else {
            let web = key.public().json_web_key();
            let part = |name: &str| URL_SAFE_NO_PAD.decode(web[name].as_str().unwrap()).unwrap();
            assert!(info.ends_with(&[part("x"), part("y")].concat()));
        }
    }
}

#[test]
fn what_is_no_key_is_refused() {
    assert_eq!(SigningKey::of_pem("").unwrap_err(), KeyError::Absent);
    assert_eq!(PublicKey::all_of_pem(&section("EC PARAMETERS", b"x")), Err(KeyError::Absent));
    for label in ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY"] {
        assert_eq!(PublicKey::all_of_pem(&section(label, &[0x30, 3, 2, 1, 1])), Err(KeyError::Unusable), "{label}");
    }
}

#[test]
fn others_can_find_the_keys() {
    let keys = [new_key().public().clone(), new_key().public().clone()];
    let set = key_set(&keys);
    assert_eq!(set["keys"][1]["kid"], keys[1].id());
    assert_eq!((&set["keys"][0]["kty"], &set["keys"][0]["crv"]), (&json!("EC"), &json!("P-256")));
    let found = configuration(ISSUER, "https://192.0.2.1:6443/openid/v1/jwks", &keys).unwrap();
    let expected = json!({
        "issuer": ISSUER,
        "jwks_uri": "https://192.0.2.1:6443/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    assert_eq!(found, expected);
    for (issuer, error) in [
        ("kubernetes", DiscoveryError::Scheme),
        ("https://", DiscoveryError::Scheme),
        ("https://a?b", DiscoveryError::Query),
        ("https://a#b", DiscoveryError::Query),
    ] {
        assert_eq!(configuration(issuer, "", &keys), Err(error), "{issuer}");
    }
    assert_eq!(configuration(ISSUER, "", &[]), Err(DiscoveryError::NoKeys));
}

fn reference(name: &str, uid: &str) -> Reference {
    Reference { name: name.to_owned(), uid: uid.to_owned() }
}

fn robot() -> Claims {
    Claims {
        issuer: ISSUER.to_owned(),
        audiences: vec!["api".to_owned(), "other".to_owned()],
        expires: Some(5000),
        issued: Some(1000),
        not_before: Some(1000),
        id: "j".to_owned(),
        namespace: "a".to_owned(),
        account: reference("robot", "1"),
        bound: Some(Bound::Pod { pod: reference("p", "2"), node: Some(reference("n", "3")) }),
        warn_after: Some(2000),
    }
}

fn tokens(key: &SigningKey) -> Tokens {
    let audiences = vec!["api".to_owned()];
    Tokens { issuers: vec![ISSUER.to_owned()], keys: vec![key.public().clone()], audiences }
}

fn object(uid: &str) -> Value {
    json!({"metadata": {"uid": uid}})
}

#[test]
fn claims_come_back_from_json() {
    let written = robot().to_json();
    assert_eq!(written["sub"], "system:serviceaccount:a:robot");
    let private = json!({
        "namespace": "a",
        "serviceaccount": {"name": "robot", "uid": "1"},
        "pod": {"name": "p", "uid": "2"},
        "node": {"name": "n", "uid": "3"},
        "warnafter": 2000,
    });
    assert_eq!(written["kubernetes.io"], private);
    let bounds = [None, Some(Bound::Secret(reference("s", "4"))), Some(Bound::Node(reference("n", "3")))];
    for bound in bounds.into_iter().chain([robot().bound]) {
        let claims = Claims { bound, ..robot() };
        assert_eq!(Claims::from_json(&claims.to_json()), Some(claims));
    }
    for (key, value) in [("exp", json!("1")), ("iat", json!(1e300)), ("nbf", json!(-1)), ("aud", json!([1]))] {
        let mut wrong = written.clone();
        wrong[key] = value;
        assert_eq!(Claims::from_json(&wrong), None, "{key}");
    }
}

#[test]
fn a_token_is_believed_only_unchanged_and_in_its_time() {
    let (key, stranger) = (new_key(), new_key());
    let tokens = tokens(&key);
    let token = sign(&key, &robot().to_json()).unwrap();
    let error = |token: &str, now| tokens.verify(token, &[], now).unwrap_err().to_string();

    let verified = tokens.verify(&token, &[], 1500).unwrap().unwrap();
    assert_eq!((&verified.claims, verified.audiences.as_slice()), (&robot(), &["api".to_owned()][..]));
    assert!(!verified.is_stale(2000) && verified.is_stale(2001));
    assert!(tokens.verify(&token, &[], 940).is_ok() && tokens.verify(&token, &[], 5060).is_ok());
    assert_eq!(error(&token, 939), "service account token is not valid yet");
    assert_eq!(error(&token, 5061), "service account token has expired");
    let late = sign(&key, &Claims { not_before: None, ..robot() }.to_json()).unwrap();
    assert_eq!(error(&late, 939), "service account token is issued in the future");

    let parts: Vec<&str> = token.split('.').collect();
    let other = Claims { account: reference("admin", "1"), ..robot() }.to_json().to_string();
    let changed = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(other), parts[2]);
    assert_eq!(error(&changed, 1500), "invalid bearer token");
    let forged = sign(&stranger, &robot().to_json()).unwrap();
    assert_eq!(error(&forged, 1500), "invalid signature, no keys found");
    for header in [json!({"alg": "none"}), json!({"alg": "RS256"}), json!({"alg": "ES256"}), json!({})] {
        let bare = format!("{}.{}.", URL_SAFE_NO_PAD.encode(header.to_string()), parts[1]);
        assert_eq!(error(&bare, 1500), "invalid bearer token", "{header}");
    }
    let unnamed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), parts[1]);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(unnamed.as_bytes()).unwrap());
    assert!(tokens.verify(&format!("{unnamed}.{signature}"), &[], 1500).unwrap().is_some());

    let foreign = sign(&key, &Claims { issuer: "https://else".to_owned(), ..robot() }.to_json()).unwrap();
    for token in [foreign.as_str(), "", "a.b", "a.b.c", "abcdef.0123456789abcdef"] {
        assert_eq!(tokens.verify(token, &[], 1500), Ok(None), "{token}");
    }
}

#[test]
fn a_token_is_for_its_audiences_only() {
    let key = new_key();
    let tokens = tokens(&key);
    let token = sign(&key, &robot().to_json()).unwrap();
    let ask = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|one| (*one).to_owned()).collect();
        tokens.verify(&token, &wanted, 1500).map(|found| found.unwrap().audiences)
    };
    assert_eq!(ask(&["other", "more"]), Ok(vec!["other".to_owned()]));
    let error = r#"token audiences ["api" "other"] is invalid for the target audiences ["more"]"#;
    assert_eq!(ask(&["more"]).unwrap_err().to_string(), error);
    let bare = sign(&key, &Claims { audiences: vec![], ..robot() }.to_json()).unwrap();
    assert!(tokens.verify(&bare, &[], 1500).is_err());
}

#[test]
fn a_token_ends_with_what_it_leans_on() {
    let key = new_key();
    let tokens = tokens(&key);
    let verified = |bound: Option<Bound>| {
        let token = sign(&key, &Claims { bound, ..robot() }.to_json()).unwrap();
        tokens.verify(&token, &[], 1500).unwrap().unwrap()
    };
    let pod = verified(robot().bound);
    assert_eq!(pod.lookup(), Lookup::Pod("p"));
    let user = pod.user(Some(&object("1")), Some(&object("2")), "", 1500).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:robot", "1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a"]);
    for (name, value) in
        [("pod-name", "p"), ("pod-uid", "2"), ("node-name", "n"), ("node-uid", "3"), ("credential-id", "JTI=j")]
    {
        assert_eq!(user.extra[&format!("authentication.kubernetes.io/{name}")], [value]);
    }
    let leaving = |uid: &str| json!({"metadata": {"uid": uid, "deletionTimestamp": "1970-01-01T00:25:00Z"}});
    let gone = "service account token has been invalidated";
    for (account, bound, now, error) in [
        (None, Some(object("2")), 1500, r#"serviceaccounts "robot" not found"#),
        (Some(object("9")), Some(object("2")), 1500, "service account UID (9) does not match claim (1)"),
        (Some(leaving("1")), Some(object("2")), 1561, "service account a/robot has been deleted"),
        (Some(object("1")), None, 1500, gone),
        (Some(object("1")), Some(leaving("2")), 1561, gone),
        (Some(object("1")), Some(object("9")), 1500, "pod UID (9) does not match service account pod ref claim (2)"),
    ] {
        let found = pod.user(account.as_ref(), bound.as_ref(), "", now);
        assert_eq!(found.unwrap_err().to_string(), error);
    }
    assert!(pod.user(Some(&leaving("1")), Some(&leaving("2")), "", 1560).is_ok());
    let node = verified(Some(Bound::Node(reference("n", "3"))));
    assert_eq!(node.lookup(), Lookup::Node("n"));
    assert!(node.user(Some(&object("1")), Some(&object("3")), "", 1500).is_ok());
    assert!(verified(None).user(Some(&object("1")), None, "", 1500).is_ok());
}

#[test]
fn the_use_of_a_token_is_noted_once_a_day() {
    let now = "2030-06-01T23:59:59Z".parse::<jiff::Timestamp>().unwrap().as_second();
    for (noted, expected) in [
        (None, Some("2030-06-01")),
        (Some("2030-05-31"), Some("2030-06-01")),
        (Some("2030-06-01"), None),
        (Some("2030-06-02"), None),
        (Some("2030-06-03"), Some("2030-06-01")),
        (Some("x"), Some("2030-06-01")),
    ] {
        let secret = json!({"metadata": {"labels": {LAST_USED: noted}}});
        assert_eq!(use_to_note(&secret, now).as_deref(), expected, "{noted:?}");
    }
}

#[test]
fn a_token_of_a_secret_needs_that_secret() {
    let key = new_key();
    let tokens = tokens(&key);
    let claims = json!({
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:a:robot",
        "kubernetes.io/serviceaccount/namespace": "a",
        "kubernetes.io/serviceaccount/secret.name": "s",
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": "1",
    });
    let token = sign(&key, &claims).unwrap();
    let verified = tokens.verify(&token, &[], i64::MAX).unwrap().unwrap();
    assert_eq!(verified.lookup(), Lookup::Secret("s"));
    let secret = json!({"data": {"token": STANDARD.encode(&token)}});
    assert!(verified.user(Some(&object("1")), Some(&secret), &token, 0).is_ok());
    let account = |secrets: Value| json!({"metadata": {"uid": "1"}, "secrets": secrets});
    assert!(verified.is_generated(&account(json!([{"name": "x"}, {"name": "s"}]))));
    assert!(!verified.is_generated(&account(json!([{"name": "x"}]))) && !verified.is_generated(&object("1")));
    let mut marked = secret.clone();
    marked["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = "2026-01-01".into();
    let refused =
        |secret: Option<&Value>| verified.user(Some(&object("1")), secret, &token, 0).unwrap_err().to_string();
    assert_eq!(refused(None), "Token has been invalidated");
    assert_eq!(refused(Some(&json!({}))), "Token does not match server's copy");
    assert!(refused(Some(&marked)).contains("has been marked invalid. Use tokens from the TokenRequest API"));
    let error = |secret: &Value| verified.user(Some(&object("1")), Some(secret), &token, 0).unwrap_err();
    assert!(error(&marked).is_marked() && !error(&json!({})).is_marked() && verified.is_kept());
    marked["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = "".into();
    assert!(verified.user(Some(&object("1")), Some(&marked), &token, 0).is_ok(), "the label says nothing");
    for (field, error) in
        [("sub", "sub claim is missing"), ("kubernetes.io/serviceaccount/secret.name", "secretName claim is missing")]
    {
        let mut wrong = claims.clone();
        wrong[field] = Value::Null;
        let found = tokens.verify(&sign(&key, &wrong).unwrap(), &[], 0);
        assert_eq!(found.unwrap_err().to_string(), error);
    }
    let mut wrong = claims;
    wrong["sub"] = "system:serviceaccount:a:admin".into();
    let found = tokens.verify(&sign(&key, &wrong).unwrap(), &[], 0);
    assert_eq!(found.unwrap_err().to_string(), "sub claim is invalid");
}

fn issuer() -> Issuer {
    Issuer { name: ISSUER.to_owned(), audiences: vec!["api".to_owned()], extends: true, lifetime_max: None }
}

fn account() -> Value {
    json!({"metadata": {"name": "robot", "namespace": "a", "uid": "1"}})
}

fn request(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec})
}

fn bound_to(kind: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": "p", "uid": uid})
}

#[test]
fn a_token_is_given_out_as_asked_for() {
    let account = account();
    let objects = Objects { account: &account, bound: None, node: None };
    let plain = issuer().issue(&request(json!({})), objects, "j", 1000).unwrap();
    let expected =
        Claims { audiences: vec!["api".to_owned()], expires: Some(4600), bound: None, warn_after: None, ..robot() };
    assert_eq!((plain.claims, plain.warning), (expected, None));
    assert_eq!(plain.answer["status"], json!({"expirationTimestamp": "1970-01-01T01:16:40Z"}));
    assert_eq!(plain.answer["spec"], json!({"audiences": ["api"], "expirationSeconds": 3600}));

    let short = Issuer { lifetime_max: Some(1000), ..issuer() };
    let short = short.issue(&request(json!({"expirationSeconds": 2000})), objects, "j", 1000).unwrap();
    assert_eq!(short.claims.expires, Some(2000));
    assert_eq!(short.warning.unwrap(), "requested expiration of 2000 seconds shortened to 1000 seconds");
}

#[test]
fn tokens_of_old_clients_live_longer_and_warn() {
    let account = account();
    let pod = json!({"metadata": {"name": "p", "uid": "2"}, "spec": {"serviceAccountName": "robot", "nodeName": "n"}});
    let node = object("3");
    let objects = Objects { account: &account, bound: Some(&pod), node: Some(&node) };
    let spec = |seconds: i64, audience: &str| {
        request(json!({"audiences": [audience], "expirationSeconds": seconds, "boundObjectRef": bound_to("Pod", "2")}))
    };
    let times = |seconds, audience| {
        let grant = issuer().issue(&spec(seconds, audience), objects, "j", 1000).unwrap();
        assert_eq!(grant.claims.bound, robot().bound);
        (grant.claims.expires.unwrap(), grant.claims.warn_after)
    };
    assert_eq!(times(3607, "api"), (1000 + 31_536_000, Some(4607)));
    assert_eq!(times(3607, "else"), (4607, None));
    assert_eq!(times(3608, "api"), (4608, None));
    let lone = issuer().issue(&spec(600, "api"), Objects { node: None, ..objects }, "j", 0).unwrap();
    assert_eq!(lone.claims.bound, Some(Bound::Pod { pod: reference("p", "2"), node: Some(reference("n", "")) }));
    assert!(lone.claims.to_json()["kubernetes.io"]["node"]["uid"].is_null());
}

#[test]
fn a_request_that_does_not_fit_is_refused() {
    let account = account();
    let pod = json!({"metadata": {"name": "p", "uid": "2"}, "spec": {"serviceAccountName": "other"}});
    let secret = json!({"metadata": {"name": "p", "uid": "2"}});
    let mut misnamed = request(json!({}));
    misnamed["metadata"]["uid"] = "9".into();
    let mut misplaced = request(json!({}));
    misplaced["metadata"]["namespace"] = "b".into();
    for (request, bound, code, message) in [
        (request(json!({"expirationSeconds": 599})), None, 422, "Invalid value: 599: may not specify a duration less"),
        (request(json!({"expirationSeconds": 4_294_967_297_i64})), None, 422, "larger than 2^32 seconds"),
        (misplaced, None, 422, "must match the service account namespace if specified"),
        (misnamed, None, 409, "the UID in the token request (9) does not match the UID of the service account (1)"),
        (request(json!({"boundObjectRef": bound_to("Pod", "")})), Some(&pod), 400, r#"for serviceaccount "robot" to"#),
        (request(json!({"boundObjectRef": bound_to("Pod", "")})), None, 404, r#"pods "p" not found"#),
        (request(json!({"boundObjectRef": bound_to("Secret", "9")})), Some(&secret), 409, "reference (9) does not"),
        (request(json!({"boundObjectRef": bound_to("Service", "")})), None, 400, "object of type /v1, Kind=Service"),
    ] {
        let objects = Objects { account: &account, bound, node: None };
        let status = issuer().issue(&request, objects, "j", 0).unwrap_err();
        assert_eq!(status.code, code, "{}", status.message);
        assert!(status.message.contains(message), "{}", status.message);
    }
    let found = issuer().issue(
        &request(json!({"boundObjectRef": bound_to("Secret", "2")})),
        Objects { account: &account, bound: Some(&secret), node: None },
        "j",
        0,
    );
    assert_eq!(found.unwrap().claims.bound, Some(Bound::Secret(reference("p", "2"))));
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd_for_a_key(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,40}") {
        for label in ["PUBLIC KEY", "CERTIFICATE", "EC PRIVATE KEY", "PRIVATE KEY", "RSA PRIVATE KEY"] {
            prop_assert!(PublicKey::all_of_pem(&section(label, &bytes)).is_err());
            let odd = format!("-----BEGIN {label}-----{text}-----END ");
            prop_assert!(SigningKey::of_pem(&odd).is_err());
        }
    }

    #[test]
    fn no_token_is_too_odd(parts in prop::collection::vec("\\PC{0,20}", 0..5), claim in "\\PC{0,9}", time in any::<f64>(), now in any::<i64>()) {
        let key = new_key();
        let tokens = tokens(&key);
        prop_assert_eq!(tokens.verify(&parts.join("."), &[], now), Ok(None));
        let mut odd = robot().to_json();
        odd["exp"] = json!(time);
        odd["kubernetes.io"]["pod"] = json!(claim);
        let signed = sign(&key, &odd).unwrap();
        if let Ok(found) = tokens.verify(&signed, &[], now) {
            prop_assert!(found.is_some_and(|found| found.user(None, None, &signed, now).is_err()));
        }
    }
}
