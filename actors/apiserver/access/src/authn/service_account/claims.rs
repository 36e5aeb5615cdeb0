//! What a token says, and how that stands in JSON.

use serde_json::{Value, json};

use crate::service_account_name;

/// Issuer of the tokens that Secrets hold.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const PRIVATE: &str = "kubernetes.io";

/// An object that a token leans on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid; a later object of the same name doesn't count.
    pub uid: String,
}

impl Reference {
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        value.is_object().then(|| Self { name: text("name"), uid: text("uid") })
    }

    fn write(&self) -> Value {
        let mut value = json!({"name": self.name});
        if !self.uid.is_empty() {
            value["uid"] = self.uid.as_str().into();
        }
        value
    }
}

/// The object with which a token ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A pod, and the node that it was on, which is only told.
    Pod {
        /// The pod.
        pod: Reference,
        /// Its node, if it had one.
        node: Option<Reference>,
    },
    /// A Secret.
    Secret(Reference),
    /// A node.
    Node(Reference),
}

/// What a token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who made the token.
    pub issuer: String,
    /// Whom it is meant for.
    pub audiences: Vec<String>,
    /// When it ends; a token without such a time is none of ours unless it is from a Secret.
    pub expires: Option<i64>,
    /// When it was made.
    pub issued: Option<i64>,
    /// When it begins.
    pub not_before: Option<i64>,
    /// Tells tokens apart.
    pub id: String,
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub account: Reference,
    /// With what else it ends.
    pub bound: Option<Bound>,
    /// From when on its use is worth a warning, for it lives longer than was asked for.
    pub warn_after: Option<i64>,
}

impl Claims {
    /// As a token holds them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut private = json!({"namespace": self.namespace, "serviceaccount": self.account.write()});
        match &self.bound {
            Some(Bound::Pod { pod, node }) => {
                private["pod"] = pod.write();
                if let Some(node) = node {
                    private["node"] = node.write();
                }
            }
            Some(Bound::Secret(secret)) => private["secret"] = secret.write(),
            Some(Bound::Node(node)) => private["node"] = node.write(),
            None => {}
        }
        let mut claims = json!({
            "iss": self.issuer,
            "sub": service_account_name(&self.namespace, &self.account.name),
            "aud": self.audiences,
        });
        let put = |to: &mut Value, key: &str, time: Option<i64>| {
            if let Some(time) = time {
                to[key] = time.into();
            }
        };
        put(&mut private, "warnafter", self.warn_after);
        put(&mut claims, "exp", self.expires);
        put(&mut claims, "iat", self.issued);
        put(&mut claims, "nbf", self.not_before);
        if !self.id.is_empty() {
            claims["jti"] = self.id.as_str().into();
        }
        claims[PRIVATE] = private;
        claims
    }

    /// Reads what [`Claims::to_json`] wrote; `None` if a part is of another type or names no service account.
    #[must_use]
    pub fn from_json(claims: &Value) -> Option<Self> {
        let private = &claims[PRIVATE];
        let node = Reference::read(&private["node"]);
        let bound = match (Reference::read(&private["pod"]), Reference::read(&private["secret"]), node) {
            (Some(pod), _, node) => Some(Bound::Pod { pod, node }),
            (None, Some(secret), _) => Some(Bound::Secret(secret)),
            (None, None, node) => node.map(Bound::Node),
        };
        Some(Self {
            issuer: claims["iss"].as_str()?.to_owned(),
            audiences: audiences(&claims["aud"])?,
            expires: time(&claims["exp"])?,
            issued: time(&claims["iat"])?,
            not_before: time(&claims["nbf"])?,
            id: claims["jti"].as_str().unwrap_or_default().to_owned(),
            namespace: private["namespace"].as_str()?.to_owned(),
            account: Reference::read(&private["serviceaccount"])?,
            bound,
            warn_after: time(&private["warnafter"])?,
        })
    }
}

/// One text or many; none if absent.
pub(super) fn audiences(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Seconds since 1970, fractions cut off; the outer `None` is for what is no time.
#[expect(clippy::option_option, reason = "absent and wrong are two answers")]
pub(super) fn time(value: &Value) -> Option<Option<i64>> {
    /// The year 10000 or so: nothing later is a time, and sums of such numbers don't overflow.
    const LATEST: f64 = 253_402_300_799.0;
    match value {
        Value::Null => Some(None),
        Value::Number(number) => {
            let seconds = number.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds))?;
            #[expect(clippy::cast_possible_truncation, reason = "within the bounds above")]
            let seconds = seconds as i64;
            Some(Some(seconds))
        }
        _ => None,
    }
}
