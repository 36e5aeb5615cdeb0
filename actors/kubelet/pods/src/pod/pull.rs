//! Getting an image before a container is started from it.

use jiff::Timestamp;
use k3sd_cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, Secret, ServiceAccount};
use kube::Api;

use super::start::Obstacle;
use super::sync::Worker;
use crate::images::{Keyring, Policy, is_name, normal, policy};
use crate::spec;
use crate::translate::container::Image;

impl Worker<'_> {
    /// Makes sure that the image is there, as the container's policy says.
    pub(super) async fn image(&self, pod: &Pod, container: &Container) -> Result<Image, Obstacle> {
        let named = container.image.as_deref().unwrap_or_default();
        let tell = |kind, reason: &str, text: &str| self.tell_about(pod, &container.name, kind, reason, text);
        if !is_name(named) {
            let text = format!(
                "Failed to apply default image tag {named:?}: couldn't parse image name {named:?}: invalid reference format"
            );
            tell("Warning", "InspectFailed", &text);
            tell("Warning", "Failed", "Error: InvalidImageName");
            return Err(Obstacle::new("InvalidImageName", text));
        }
        let image = normal(named);
        let policy = policy(container.image_pull_policy.as_deref(), named);
        let present = self.inspect(&image, named).await.map_err(|error| {
            let text = format!("Failed to inspect image {named:?}: {error}");
            tell("Warning", "InspectFailed", &text);
            Obstacle::new("ImageInspectError", text)
        })?;
        match (policy, present) {
            (Policy::IfNotPresent | Policy::Never, Some(found)) => {
                tell("Normal", "Pulled", &format!("Container image {named:?} already present on machine"));
                return Ok(found);
            }
            (Policy::Never, None) => {
                let text = format!("Container image {named:?} is not present with pull policy of Never");
                tell("Warning", "ErrImageNeverPull", &text);
                tell("Warning", "Failed", "Error: ErrImageNeverPull");
                return Err(Obstacle::new("ErrImageNeverPull", text));
            }
            _ => {}
        }
        self.pull(pod, container, named, &image).await?;
        let found = self.inspect(&image, named).await;
        found
            .ok()
            .flatten()
            .ok_or_else(|| Obstacle::new("ErrImagePull", format!("image {named:?} is not there after its pull")))
    }

    async fn inspect(&self, image: &str, named: &str) -> Result<Option<Image>, String> {
        let asked = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
        let asked = v1::ImageStatusRequest { image: Some(asked), verbose: false };
        let answer = self.cri().image_status(asked).await.map_err(|error| error.status())?;
        Ok(answer.image.map(|found| {
            let uid = found.uid.map(|uid| uid.value);
            // An image that names nobody is run as root.
            let uid = uid.or_else(|| found.username.is_empty().then_some(0));
            Image { reference: found.id, named: named.to_owned(), uid, user: found.username }
        }))
    }

    async fn pull(&self, pod: &Pod, container: &Container, named: &str, image: &str) -> Result<(), Obstacle> {
        let tell = |kind, reason: &str, text: &str| self.tell_about(pod, &container.name, kind, reason, text);
        let now = self.now();
        let waiting = self.entry.memory.borrow().pull_backoffs.since_try(image, now);
        if let Some((_, until)) = waiting {
            let text = format!("Back-off pulling image {named:?}");
            let before = self.entry.memory.borrow().hindrances.get(&container.name).cloned();
            if before.as_ref().is_none_or(|one| one.reason != "ImagePullBackOff") {
                tell("Normal", "BackOff", &text);
                tell("Warning", "Failed", "Error: ImagePullBackOff");
            }
            let message = match before {
                Some(one) if one.reason == "ErrImagePull" => format!("{text}: ErrImagePull: {}", one.message),
                Some(one) if one.reason == "ImagePullBackOff" => one.message,
                _ => text,
            };
            return Err(Obstacle { until: Some(until), ..Obstacle::new("ImagePullBackOff", message) });
        }
        let permit = self.shared.pulls.acquire().await;
        tell("Normal", "Pulling", &format!("Pulling image {named:?}"));
        let began = self.now();
        let outcome = self.pull_with_any(pod, image).await;
        drop(permit);
        match outcome {
            Ok(reference) => {
                let size = self.size(&reference).await;
                let (alone, whole) = (took(began, self.now()), took(now, self.now()));
                tell(
                    "Normal",
                    "Pulled",
                    &format!(
                        "Successfully pulled image {named:?} in {alone} ({whole} including waiting). Image size: {size} bytes."
                    ),
                );
                Ok(())
            }
            Err(error) => {
                let now = self.now();
                self.entry.memory.send_modify(|memory| memory.pull_backoffs.next(image, now, now));
                tell("Warning", "Failed", &format!("Failed to pull image {named:?}: {error}"));
                tell("Warning", "Failed", "Error: ErrImagePull");
                Err(Obstacle::new("ErrImagePull", error))
            }
        }
    }

    async fn size(&self, reference: &str) -> u64 {
        let asked = v1::ImageSpec { image: reference.to_owned(), ..v1::ImageSpec::default() };
        let asked = v1::ImageStatusRequest { image: Some(asked), verbose: false };
        self.cri().image_status(asked).await.ok().and_then(|answer| answer.image).map_or(0, |image| image.size)
    }

    /// Pulls with each of the credentials that fit, or without any if none do.
    async fn pull_with_any(&self, pod: &Pod, image: &str) -> Result<String, String> {
        let found = self.credentials(pod, image).await;
        let tries: Vec<_> = if found.is_empty() { vec![None] } else { found.into_iter().map(Some).collect() };
        let mut last = String::new();
        for auth in tries {
            let spec = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
            let asked = v1::PullImageRequest { image: Some(spec), auth, sandbox_config: None };
            match self.cri().pull_image(asked).await {
                Ok(answer) => return Ok(answer.image_ref),
                Err(error) => last = error.status_or_message(),
            }
        }
        Err(last)
    }

    /// All that may be good for an image: the pod's, then the node's, then those of programs.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<v1::AuthConfig> {
        let mut found = self.keyring(pod).await.lookup(image);
        found.extend(Keyring::of_node(&self.shared.config.root).lookup(image));
        if let Some(programs) = &self.shared.deps.credentials {
            let said = programs.ask(&self.shared.deps.connect, self.clock, pod, image).await;
            found.extend(Keyring::of_auths(said).lookup(image));
        }
        found
    }

    /// Credentials of the pod, or of its service account where it names none. What can't be read is left out, and told.
    async fn keyring(&self, pod: &Pod) -> Keyring {
        let names: Vec<String> = spec::spec(pod)
            .image_pull_secrets
            .iter()
            .flatten()
            .map(|one| one.name.clone())
            .filter(|name| !name.is_empty())
            .collect();
        let namespace = spec::namespace(pod);
        let client = self.shared.deps.connect.client();
        let names = if names.is_empty() && spec::annotation(pod, crate::source::MIRROR).is_none() {
            self.of_account(pod).await
        } else {
            names
        };
        let api: Api<Secret> = Api::namespaced(client, namespace);
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match api.get_opt(&name).await {
                Ok(Some(secret)) => found.push(secret),
                _ => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.warn(pod, "FailedToRetrieveImagePullSecret", &text);
        }
        Keyring::of(&found)
    }

    /// Admission writes them into pods; those from before it did have to be looked up.
    async fn of_account(&self, pod: &Pod) -> Vec<String> {
        let spec = spec::spec(pod);
        let Some(account) = spec.service_account_name.as_deref().filter(|name| !name.is_empty()) else {
            return Vec::new();
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.shared.deps.connect.client(), spec::namespace(pod));
        match api.get_opt(account).await {
            Ok(Some(found)) => found.image_pull_secrets.into_iter().flatten().map(|one| one.name).collect(),
            _ => Vec::new(),
        }
    }
}

/// Between two times, as Go shows it to milliseconds.
fn took(from: Timestamp, to: Timestamp) -> String {
    let milliseconds = to.duration_since(from).as_millis().max(0);
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let seconds = format!("{}.{:03}", milliseconds / 1000 % 60, milliseconds % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match milliseconds / 60_000 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_go_does() {
        let start = Timestamp::from_second(0).unwrap();
        for (milliseconds, text) in [(0, "0ms"), (999, "999ms"), (1000, "1s"), (1234, "1.234s"), (61_500, "1m1.5s")] {
            assert_eq!(took(start, Timestamp::from_millisecond(milliseconds).unwrap()), text);
        }
    }
}
