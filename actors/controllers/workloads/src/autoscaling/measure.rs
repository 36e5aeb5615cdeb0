//! What one metric of an autoscaler asks for.

use std::sync::Arc;

use k3sd_objects::quantity::{self, Format};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;

use super::calculator::{PerPod, Proposal, Terms, per_pod, requests, shared_average, shared_value};
use super::metrics;

/// Where and for whom something is measured.
pub(super) struct Place<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    /// Selects the pods, as text.
    pub(super) selector: &'a str,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) terms: Terms,
    /// How many pods there are to be.
    pub(super) current: i32,
    /// How many there are.
    pub(super) running: i32,
}

/// What came of it.
pub(super) struct Measured {
    pub(super) proposal: Proposal,
    /// What was measured, for people.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why nothing came of it: the reason of the condition and of the Event, and the text.
pub(super) struct Unmeasured {
    pub(super) reason: &'static str,
    pub(super) text: String,
}

type Outcome<T> = Result<T, String>;

/// The number of a target, in thousandths.
fn milli(amount: Option<&Quantity>) -> Option<i64> {
    Some(amount?.0.parse::<quantity::Quantity>().ok()?.milli_value())
}

fn amount(milli: i64) -> Quantity {
    Quantity(quantity::Quantity::from_milli(milli, Format::DecimalSi).to_string())
}

fn mean(proposal: Proposal) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(amount(proposal.usage)),
        average_utilization: proposal.percent,
        value: None,
    }
}

impl Place<'_> {
    /// Measures, and says how many pods that asks for.
    pub(super) async fn measure(&self, metric: &MetricSpec) -> Result<Measured, Unmeasured> {
        let kind = metric.type_.clone();
        let of = |reason, text| move |error: String| Unmeasured { reason, text: format!("{text}: {error}") };
        let status = MetricStatus { type_: kind, ..MetricStatus::default() };
        if let Some(source) = &metric.resource {
            let (name, text) = (&source.name, format!("failed to get {} resource metric value", source.name));
            let (proposal, said) =
                self.resource(name, None, &source.target).await.map_err(of("FailedGetResourceMetric", text))?;
            let resource = Some(ResourceMetricStatus { name: name.clone(), current: mean(proposal) });
            return Ok(Measured { proposal, name: said, status: MetricStatus { resource, ..status } });
        }
        if let Some(source) = &metric.container_resource {
            let (name, text) = (&source.name, format!("failed to get {} container metric value", source.name));
            let container = Some(source.container.as_str());
            let (proposal, said) = self
                .resource(name, container, &source.target)
                .await
                .map_err(of("FailedGetContainerResourceMetric", text))?;
            let container = source.container.clone();
            let said_of = ContainerResourceMetricStatus { name: name.clone(), container, current: mean(proposal) };
            let status = MetricStatus { container_resource: Some(said_of), ..status };
            return Ok(Measured { proposal, name: said, status });
        }
        if let Some(source) = &metric.pods {
            let text = "failed to get pods metric value".to_owned();
            let proposal = self.of_pods(source).await.map_err(of("FailedGetPodsMetric", text))?;
            let pods = Some(PodsMetricStatus { metric: source.metric.clone(), current: mean(proposal) });
            let name = format!("pods metric {}", source.metric.name);
            return Ok(Measured { proposal, name, status: MetricStatus { pods, ..status } });
        }
        if let Some(source) = &metric.object {
            let text = "failed to get object metric value".to_owned();
            let (proposal, current) = self.object(source).await.map_err(of("FailedGetObjectMetric", text))?;
            let object = ObjectMetricStatus {
                metric: source.metric.clone(),
                described_object: source.described_object.clone(),
                current,
            };
            let name = format!("{} metric {}", source.described_object.kind, source.metric.name);
            return Ok(Measured { proposal, name, status: MetricStatus { object: Some(object), ..status } });
        }
        if let Some(source) = &metric.external {
            let text = format!("failed to get {} external metric value", source.metric.name);
            let (proposal, current) = self.external(source).await.map_err(of("FailedGetExternalMetric", text))?;
            let external = Some(ExternalMetricStatus { metric: source.metric.clone(), current });
            let name = format!("external metric {}", source.metric.name);
            return Ok(Measured { proposal, name, status: MetricStatus { external, ..status } });
        }
        let text = format!("unknown metric source type \"{}\"", metric.type_);
        Err(Unmeasured { reason: "InvalidMetricSourceType", text })
    }

    async fn resource(
        &self,
        name: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Outcome<(Proposal, String)> {
        let samples = async || {
            let found = metrics::resource(self.client, self.namespace, self.selector, (name, container)).await;
            found.map_err(|error| format!("unable to get metrics for resource {name}: {error}"))
        };
        let is_cpu = name == "cpu";
        let what = if container.is_some() { "container resource" } else { "resource" };
        if let Some(wanted) = milli(target.average_value.as_ref()) {
            let failed = |error: String| format!("failed to get {name} usage: {error}");
            let samples = samples().await.map_err(failed)?;
            let asked = per_pod(self.current, &PerPod::Value(wanted), (&self.pods, samples, is_cpu), &self.terms);
            return Ok((asked.map_err(failed)?, format!("{name} {what}")));
        }
        let Some(wanted) = target.average_utilization else {
            let kinds = "neither an average utilization target nor an average value (usage) target was set";
            return Err(format!("invalid resource metric source: {kinds}"));
        };
        let failed = |error: String| format!("failed to get {name} utilization: {error}");
        let samples = samples().await.map_err(failed)?;
        let requests = requests(&self.pods, container, name).map_err(failed)?;
        let target = PerPod::Percent(wanted, &requests);
        let asked = per_pod(self.current, &target, (&self.pods, samples, is_cpu), &self.terms).map_err(failed)?;
        Ok((asked, format!("{name} {what} utilization (percentage of request)")))
    }

    async fn of_pods(&self, source: &PodsMetricSource) -> Outcome<Proposal> {
        let failed = |error: String| format!("unable to get metric {}: {error}", source.metric.name);
        let wanted = milli(source.target.average_value.as_ref()).ok_or("no average value is wanted")?;
        let samples =
            metrics::pods(self.client, self.namespace, self.selector, &source.metric).await.map_err(failed)?;
        per_pod(self.current, &PerPod::Value(wanted), (&self.pods, samples, false), &self.terms)
    }

    async fn object(&self, source: &ObjectMetricSource) -> Outcome<(Proposal, MetricValueStatus)> {
        let found = metrics::object(self.client, self.namespace, &source.described_object, &source.metric).await;
        let place = format!("{} {}/{}", source.described_object.kind, self.namespace, source.described_object.name);
        let usage = found.map_err(|error| format!("unable to get metric {}: {place} {error}", source.metric.name))?;
        self.shared(usage, &source.target, "object")
    }

    async fn external(&self, source: &ExternalMetricSource) -> Outcome<(Proposal, MetricValueStatus)> {
        let found = metrics::external(self.client, self.namespace, &source.metric).await;
        let place = format!("{}/{}", self.namespace, source.metric.name);
        let usage = found.map_err(|error| format!("unable to get external metric {place}: {error}"))?;
        self.shared(usage, &source.target, "external")
    }

    /// A number that all pods share.
    fn shared(&self, usage: i64, target: &MetricTarget, kind: &str) -> Outcome<(Proposal, MetricValueStatus)> {
        if let Some(wanted) = milli(target.value.as_ref()).filter(|wanted| *wanted > 0) {
            let proposal = shared_value(self.current, usage, wanted, &self.pods, &self.terms);
            let current = MetricValueStatus { value: Some(amount(usage)), ..MetricValueStatus::default() };
            return Ok((proposal, current));
        }
        let wanted = milli(target.average_value.as_ref()).filter(|wanted| *wanted > 0);
        let kinds = "neither a value target nor an average value target was set";
        let wanted = wanted.ok_or_else(|| format!("invalid {kind} metric source: {kinds}"))?;
        let proposal = shared_average(self.running, usage, wanted, &self.terms);
        Ok((proposal, mean(proposal)))
    }
}
