//! Shape and wording of every failure, against the texts that clients of upstream see.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PODS: Qualified<'static> = Qualified { group: "", name: "pods" };
const DEPLOYMENTS: Qualified<'static> = Qualified { group: "apps", name: "deployments" };

#[test]
fn every_failure_has_its_code_reason_and_wording() {
    for (status, code, reason, message) in [
        (Status::not_found(PODS, "x"), 404, "NotFound", r#"pods "x" not found"#),
        (Status::not_found(DEPLOYMENTS, "x"), 404, "NotFound", r#"deployments.apps "x" not found"#),
        (Status::already_exists(PODS, "x"), 409, "AlreadyExists", r#"pods "x" already exists"#),
        (
            Status::generate_name_conflict(PODS, "x-1", 1),
            409,
            "AlreadyExists",
            r#"pods "x-1" already exists, the server was not able to generate a unique name for the object"#,
        ),
        (Status::unauthorized("Unauthorized"), 401, "Unauthorized", "Unauthorized"),
        (Status::unauthorized(""), 401, "Unauthorized", "not authorized"),
        (Status::forbidden(PODS, "x", "no"), 403, "Forbidden", r#"pods "x" is forbidden: no"#),
        (Status::forbidden(PODS, "", "no"), 403, "Forbidden", "pods is forbidden: no"),
        (Status::forbidden(Qualified::new("", ""), "", "no"), 403, "Forbidden", "forbidden: no"),
        (
            Status::stale(PODS, "x"),
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to \
             the latest version and try again",
        ),
        (Status::gone("gone"), 410, "Gone", "gone"),
        (Status::expired("too old resource version: 1 (7)"), 410, "Expired", "too old resource version: 1 (7)"),
        (Status::bad_request("what?"), 400, "BadRequest", "what?"),
        (
            Status::method_not_allowed(DEPLOYMENTS, "patch"),
            405,
            "MethodNotAllowed",
            r#"patch is not supported on resources of kind "deployments.apps""#,
        ),
        (
            Status::not_acceptable(&["application/json", "application/yaml"]),
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        ),
        (
            Status::unsupported_media_type(&["application/json"]),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json",
        ),
        (
            Status::request_entity_too_large("limit is 3145728"),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        ),
        (Status::too_many_requests("slowly", 1), 429, "TooManyRequests", "slowly"),
        (Status::timeout("late", 0), 504, "Timeout", "Timeout: late"),
        (
            Status::too_large_resource_version(9, 7, 1),
            504,
            "Timeout",
            "Timeout: Too large resource version: 9, current: 7",
        ),
        (
            Status::server_timeout(PODS, "list", 2),
            500,
            "ServerTimeout",
            "The list operation against pods could not be completed at this time, please try again.",
        ),
        (Status::internal_error("oh"), 500, "InternalError", "Internal error occurred: oh"),
        (Status::service_unavailable("later"), 503, "ServiceUnavailable", "later"),
    ] {
        assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (code, reason, message));
        assert_eq!(status.http_code(), u16::try_from(code).unwrap());
        assert_eq!(status.outcome, "Failure");
        assert_eq!(status.to_string(), message);
        let read: Status = serde_json::from_slice(&status.to_bytes()).unwrap();
        assert_eq!(read, status, "what is written reads back");
    }
}

#[test]
fn bytes_are_in_the_order_in_which_upstream_writes_them() {
    let text = |status: Status| String::from_utf8(status.to_bytes()).unwrap();
    assert_eq!(
        text(Status::not_found(DEPLOYMENTS, "x")),
        concat!(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" "#,
            r#"not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        )
    );
    assert_eq!(
        text(Status::success(PODS, "x", "u-1")),
        concat!(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","#,
            r#""details":{"name":"x","kind":"pods","uid":"u-1"}}"#
        )
    );
    assert_eq!(
        text(Status::too_large_resource_version(9, 7, 1)),
        concat!(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
            r#""message":"Timeout: Too large resource version: 9, current: 7","reason":"Timeout","#,
            r#""details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"#,
            r#""retryAfterSeconds":1},"code":504}"#
        )
    );
    assert!(text(Status::expired("old").with_continue("abc")).contains(r#""metadata":{"continue":"abc"}"#));
    assert!(text(Status::timeout("late", 0)).contains(r#""details":{},"#), "empty details are shown as such");
    assert!(!text(Status::bad_request("what?")).contains("details"));
}

#[test]
fn waiting_is_asked_for_in_seconds() {
    assert_eq!(Status::too_many_requests("slowly", 1).retry_after_seconds(), Some(1));
    assert_eq!(Status::too_many_requests("no", 0).retry_after_seconds(), None);
    assert_eq!(Status::bad_request("no").retry_after_seconds(), None);
    assert_eq!(Status::internal_error("no").with_retry_after(3).retry_after_seconds(), Some(3));
}

#[test]
fn a_webhook_may_answer_nonsense() {
    let odd: Status = serde_json::from_value(json!({"status": "Failure", "reason": "Moon", "code": 7})).unwrap();
    assert_eq!((odd.reason.as_str(), odd.http_code()), ("Moon", 500));
    let causes = json!({"details": {"causes": [{"reason": "Sun"}, {"reason": "FieldValueInvalid"}]}});
    let odd: Status = serde_json::from_value(causes).unwrap();
    let kinds: Vec<CauseKind> = odd.details.unwrap().causes.into_iter().map(|cause| cause.kind).collect();
    assert_eq!(kinds, [CauseKind::Other("Sun".to_owned()), CauseKind::Field(field::ErrorKind::Invalid)]);
}

#[test]
fn an_invalid_object_names_each_field() {
    let path = field::Path::new("spec");
    let errors = [
        field::Error::required(&path.child("selector"), ""),
        field::Error::invalid(&path.child("replicas"), -1, "must be greater than or equal to 0"),
        field::Error::invalid(&path.child("replicas"), -1, "must be greater than or equal to 0"),
    ];
    let status = Status::invalid(Qualified::new("apps", "Deployment"), "web", &errors);
    assert_eq!(
        status.message,
        "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must \
         be greater than or equal to 0]"
    );
    let details = status.to_value()["details"].clone();
    assert_eq!(details["kind"], "Deployment");
    assert_eq!(
        details["causes"][1],
        json!({
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: must be greater than or equal to 0",
            "field": "spec.replicas",
        })
    );
    assert_eq!(details["causes"].as_array().unwrap().len(), 3, "causes are told as often as they were found");
    let one = Status::invalid(Qualified::new("", "Pod"), "web", &errors[..1]);
    assert_eq!(one.message, r#"Pod "web" is invalid: spec.selector: Required value"#);
    assert_eq!(Status::invalid(Qualified::new("", "Pod"), "web", &[]).message, r#"Pod "web" is invalid"#);
}

#[test]
fn field_errors_read_as_upstreams() {
    let path = field::Path::new("a");
    for (error, text) in [
        (field::Error::not_found(&path, "v"), r#"a: Not found: "v""#),
        (field::Error::required(&path, ""), "a: Required value"),
        (field::Error::required(&path, "must be set"), "a: Required value: must be set"),
        (field::Error::duplicate(&path, "v"), r#"a: Duplicate value: "v""#),
        (field::Error::invalid(&path, "v", "why"), r#"a: Invalid value: "v": why"#),
        (field::Error::invalid(&path, 7, "why"), "a: Invalid value: 7: why"),
        (field::Error::invalid(&path, Value::Null, "why"), r#"a: Invalid value: "null": why"#),
        (field::Error::invalid(&path, json!({"b": [1]}), "why"), r#"a: Invalid value: {"b":[1]}: why"#),
        (field::Error::invalid_unshown(&path, "why"), "a: Invalid value: why"),
        (
            field::Error::not_supported(&path, "v", &["A", "B"]),
            r#"a: Unsupported value: "v": supported values: "A", "B""#,
        ),
        (field::Error::forbidden(&path, "why"), "a: Forbidden: why"),
        (field::Error::too_long(&path, 63), "a: Too long: may not be more than 63 bytes"),
        (field::Error::too_long(&path, 1), "a: Too long: may not be more than 1 byte"),
        (field::Error::too_many(&path, 9, 8), "a: Too many: 9: must have at most 8 items"),
        (field::Error::too_many(&path, 2, 1), "a: Too many: 2: must have at most 1 item"),
        (
            field::Error::type_invalid(&path, "string", r#"must be of type integer: "string""#),
            r#"a: Invalid value: "string": must be of type integer: "string""#,
        ),
        (field::Error::internal(&path, "oh"), "a: Internal error: oh"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn paths_print_fields_indices_and_keys() {
    let root = field::Path::root();
    assert_eq!(root.to_string(), "<nil>");
    assert!(root.is_root());
    let port = root.child("spec").child("containers").index(0).child("ports").index(1).child("containerPort");
    assert_eq!(port.to_string(), "spec.containers[0].ports[1].containerPort");
    assert_eq!(root.child("metadata").child("labels").key("app/x").to_string(), "metadata.labels[app/x]");
}

proptest! {
    #[test]
    fn no_answer_of_another_server_upsets_us(
        code: i32,
        texts in prop::collection::vec(any::<String>(), 5),
        seconds: i32,
    ) {
        let answer = json!({
            "code": code,
            "status": texts[0],
            "reason": texts[1],
            "message": texts[2],
            "details": {"causes": [{"reason": texts[3], "field": texts[4]}], "retryAfterSeconds": seconds},
        });
        let status: Status = serde_json::from_value(answer).unwrap();
        prop_assert!((100..600).contains(&status.http_code()));
        prop_assert_eq!(status.retry_after_seconds().is_some(), seconds > 0);
        let again: Status = serde_json::from_slice(&status.to_bytes()).unwrap();
        prop_assert_eq!(again, status);
    }
}
