//! Admission: what changes or refuses a write by looking at other objects, in upstream's order.
//!
//! ```text
//!            mutate ─▶ NamespaceLifecycle, LimitRanger, ServiceAccount, NodeRestriction, TaintNodesByCondition, Priority,
//!                      DefaultTolerationSeconds, DefaultStorageClass, StorageObjectInUseProtection, RuntimeClass,
//!                      DefaultIngressClass      (then: policies and webhooks that change)
//! validation of the kind
//!            validate ─▶ LimitRanger, ServiceAccount, Priority, PersistentVolumeClaimResize, RuntimeClass, the three about
//!                      certificates             (then: policies and webhooks that refuse)
//!                      ResourceQuota ─▶ Charge, given back if the write fails
//! ```
//!
//! Each plugin is a function of the attributes, the object and what it looks up; the caches answer without waiting, and
//! the store is asked only about what they don't know. A request that no plugin is about costs some comparisons.
//!
//! What is deliberately absent: the rules of a kind by itself (`validation`), and rights to the request itself (`access`).

mod attributes;
mod config;
mod error;
mod lookup;
mod numbers;
mod plugins;
mod quota;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use k3sd_apiserver_access::Attributes as Asked;
use k3sd_apiserver_store::Stores;
use k3sd_objects::quota::pod as pod_resources;
use k3sd_objects::read;
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;
use serde_json::Value;

pub use attributes::{Attributes, Operation};
pub use config::{AdmissionConfig, Plugin, Plugins};
pub use error::ConfigError;
pub use numbers::AdmissionNumbers;
pub use quota::Charge;

use lookup::Lookup;
use numbers::Phase;
use plugins::lifecycle::Lifecycle;
use plugins::{
    certificates, classes, limits, node_restriction, optional, priority, runtime_class, service_account, tolerations,
    volumes,
};
use quota::Quotas;

/// Whether somebody has a right, by the whole row of authorizers.
pub type Rights = dyn Fn(Asked<'_>) -> bool + Send + Sync;

/// What came of the validating phase.
#[derive(Debug, Default)]
pub struct Admitted {
    /// For the client to see, as `Warning` headers.
    pub warnings: Vec<String>,
    /// What was charged to quotas; empty for a dry run.
    pub charge: Charge,
}

/// Admits writes. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    lookup: Arc<dyn Lookup>,
    rights: Arc<Rights>,
    config: AdmissionConfig,
    clock: Clock,
    lifecycle: Lifecycle,
    quotas: Quotas,
    numbers: AdmissionNumbers,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Admission {
    /// Admission that looks things up in these stores. `rights` answers for the authorizers at the time of asking.
    #[must_use]
    pub fn new(stores: Stores, rights: Arc<Rights>, config: AdmissionConfig, clock: Clock) -> Self {
        Self::with(Arc::new(stores), rights, config, clock)
    }

    fn with(lookup: Arc<dyn Lookup>, rights: Arc<Rights>, config: AdmissionConfig, clock: Clock) -> Self {
        let lifecycle = Lifecycle::new(clock.clone());
        let quotas = Quotas::new(lookup.clone());
        let numbers = AdmissionNumbers::default();
        Self(Arc::new(Inner { lookup, rights, config, clock, lifecycle, quotas, numbers }))
    }

    /// How long each plugin takes. Shared with all clones.
    #[must_use]
    pub fn numbers(&self) -> &AdmissionNumbers {
        &self.0.numbers
    }

    /// The phase that changes. `object` is in the request's version, with defaults; null for a delete. Answers warnings
    /// for the client.
    ///
    /// # Errors
    ///
    /// Fails with what the client is told; the object may be changed in part then.
    pub async fn mutate(&self, a: &Attributes<'_>, object: &mut Value) -> Result<Vec<String>, Status> {
        let Inner { lookup, rights, config, clock, lifecycle, numbers, .. } = &*self.0;
        let mut turns = numbers.turns(clock, Phase::Mutate, a.operation);
        let (lookup, mut on) = (&**lookup, |plugin| config.plugins.has(plugin) && turns.begin(plugin));
        if on(Plugin::NamespaceLifecycle) {
            lifecycle.admit(a, object, lookup).await?;
        }
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        if writes && on(Plugin::LimitRanger) {
            limits::mutate(a, object, lookup)?;
        }
        if on(Plugin::ServiceAccount) {
            service_account::mutate(a, object, lookup, clock).await?;
        }
        if on(Plugin::NodeRestriction) && a.operation != Operation::Connect {
            node_restriction::check(a, object, lookup, &**rights).await?;
        }
        if !writes {
            turns.end();
            return Ok(Vec::new());
        }
        if on(Plugin::TaintNodesByCondition) {
            tolerations::taint_node(a, object);
        }
        if on(Plugin::AlwaysPullImages) {
            optional::always_pull(a, object);
        }
        if on(Plugin::Priority) {
            priority::mutate(a, object, lookup).await?;
        }
        if on(Plugin::DefaultTolerationSeconds) {
            tolerations::add_default_seconds(a, object, config);
        }
        if on(Plugin::ExtendedResourceToleration) {
            tolerations::add_for_devices(a, object);
        }
        if on(Plugin::DefaultStorageClass) {
            classes::storage(a, object, lookup)?;
        }
        if on(Plugin::StorageObjectInUseProtection) {
            volumes::protect(a, object);
        }
        if on(Plugin::RuntimeClass) {
            runtime_class::mutate(a, object, lookup).await?;
        }
        if on(Plugin::DefaultIngressClass) {
            classes::ingress(a, object, lookup)?;
        }
        turns.end();
        Ok(Vec::new())
    }

    /// The phase that refuses, after the object was validated. `object` is `None` for a delete.
    ///
    /// # Errors
    ///
    /// Fails with what the client is told. Nothing is charged then.
    pub async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>) -> Result<Admitted, Status> {
        let Inner { lookup, rights, config, quotas, numbers, clock, .. } = &*self.0;
        let Some(object) = object.filter(|_| matches!(a.operation, Operation::Create | Operation::Update)) else {
            return Ok(Admitted::default());
        };
        let mut turns = numbers.turns(clock, Phase::Validate, a.operation);
        let (lookup, rights) = (&**lookup, &**rights);
        let mut on = |plugin| config.plugins.has(plugin) && turns.begin(plugin);
        if on(Plugin::LimitRanger) {
            limits::validate(a, object, lookup)?;
        }
        if on(Plugin::ServiceAccount) {
            service_account::validate(a, object, lookup).await?;
        }
        if on(Plugin::AlwaysPullImages) {
            optional::check_pull(a, object)?;
        }
        if on(Plugin::Priority) {
            priority::validate(a, object, lookup)?;
        }
        if on(Plugin::PersistentVolumeClaimResize) {
            volumes::check_resize(a, object, lookup).await?;
        }
        if on(Plugin::RuntimeClass) {
            runtime_class::validate(a, object, lookup).await?;
        }
        if on(Plugin::CertificateApproval) {
            certificates::check_approval(a, object, rights)?;
        }
        if on(Plugin::CertificateSigning) {
            certificates::check_signing(a, object, rights)?;
        }
        if on(Plugin::CertificateSubjectRestriction) {
            certificates::check_subject(a, object)?;
        }
        if on(Plugin::DenyServiceExternalIPs) {
            optional::deny_external_ips(a, object)?;
        }
        let charge = if on(Plugin::ResourceQuota) { quotas.charge(a, object).await? } else { Charge::default() };
        turns.end();
        Ok(Admitted { warnings: Vec::new(), charge })
    }
}
