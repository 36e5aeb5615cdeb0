//! Removes images that nobody needs, when their disk fills up or they have been unused for too long.
//!
//! Owns:    when each image was first seen, and last in use.
//! Needs:   the container runtime.
//! Restart: permanent. What it had seen is forgotten, so that images stay for their time once more.
//! Fails:   never; without the runtime it tries again later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::events::Recorder;
use k3sd_cri::{Cri, CriError, v1};
use k3sd_runtime::{Actor, ActorError, Address, Context, Moment, ReplyPort, message_kinds};
use tokio::sync::watch;

use super::images::{ImageFact, ImagePolicy, Records, Wanted, plan, too_old};
use crate::status::{FileSystem, reference};

/// How often it looks; upstream's.
const EVERY: Duration = Duration::from_secs(300);

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct ImageKeeperArgs {
    pub(crate) cri: Cri,
    pub(crate) policy: ImagePolicy,
    /// Names of images that stay, such as that of sandboxes.
    pub(crate) kept: Vec<String>,
    pub(crate) node: String,
    pub(crate) recorder: Recorder,
    pub(crate) place: Arc<watch::Sender<Option<Address<ImageKeeperMsg>>>>,
}

/// See the variants.
pub(crate) enum ImageKeeperMsg {
    /// Look, and remove what has to go.
    LookTick,
    /// Remove everything that isn't used, because the disk is nearly full.
    Free {
        /// How many bytes were freed.
        reply: ReplyPort<u64>,
    },
}

message_kinds!(ImageKeeperMsg { LookTick, Free });

/// The actor itself.
pub(crate) struct ImageKeeper {
    args: ImageKeeperArgs,
    started: Moment,
    records: Records,
}

impl Actor for ImageKeeper {
    type Args = ImageKeeperArgs;
    type Msg = ImageKeeperMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<ImageKeeperMsg>, args: ImageKeeperArgs) -> Result<Self, ActorError> {
        args.place.send_replace(Some(ctx.address()));
        ctx.send_after(EVERY, ImageKeeperMsg::LookTick);
        Ok(Self { args, started: ctx.clock().now(), records: Records::default() })
    }

    async fn handle(&mut self, ctx: &mut Context<ImageKeeperMsg>, message: ImageKeeperMsg) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        match message {
            ImageKeeperMsg::LookTick => {
                if let Err(error) = self.look(now).await {
                    tracing::warn!(%error, "images can't be collected");
                }
                ctx.send_after(EVERY, ImageKeeperMsg::LookTick);
            }
            ImageKeeperMsg::Free { reply } => match self.free(now).await {
                Ok(bytes) => reply.send(bytes),
                Err(error) => {
                    tracing::warn!(%error, "images can't be collected");
                    reply.send(0);
                }
            },
        }
        Ok(())
    }
}

/// Images there are, and those of them that containers were made of.
struct Found {
    images: Vec<ImageFact>,
    in_use: BTreeSet<String>,
}

/// The images that containers were made of, or that are kept by name. A container names its image by id, digest or tag.
fn in_use(images: &[v1::Image], containers: &[v1::Container], kept: &[String]) -> BTreeSet<String> {
    let named = containers.iter().flat_map(|container| {
        let spec = container.image.as_ref().map(|spec| spec.image.as_str());
        spec.into_iter().chain([container.image_ref.as_str(), container.image_id.as_str()])
    });
    let names: BTreeSet<&str> = named.chain(kept.iter().map(String::as_str)).filter(|name| !name.is_empty()).collect();
    let is_used = |image: &&v1::Image| {
        let mut own = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        own.any(|name| names.contains(name.as_str()))
    };
    images.iter().filter(is_used).map(|image| image.id.clone()).collect()
}

impl ImageKeeper {
    async fn found(&mut self, now: Moment) -> Result<Found, CriError> {
        let listed = self.args.cri.list_images(v1::ListImagesRequest::default()).await?.images;
        let containers = self.args.cri.list_containers(v1::ListContainersRequest::default()).await?.containers;
        let in_use = in_use(&listed, &containers, &self.args.kept);
        let fact = |image: v1::Image| ImageFact { id: image.id, bytes: image.size, is_pinned: image.pinned };
        let images: Vec<ImageFact> = listed.into_iter().map(fact).collect();
        self.records.look(&images, &in_use, now);
        Ok(Found { images, in_use })
    }

    async fn look(&mut self, now: Moment) -> Result<(), CriError> {
        let found = self.found(now).await?;
        let policy = self.args.policy;
        let old = too_old(&found.images, &found.in_use, &self.records, &policy, self.started, now);
        self.remove(&old).await;
        let Some(disk) = self.disk().await? else { return Ok(()) };
        if disk.capacity == 0 {
            self.tell("InvalidDiskCapacity", "invalid capacity 0 on image filesystem".to_owned());
            return Ok(());
        }
        let wanted = Wanted::Marks { capacity: disk.capacity, available: disk.available };
        let Some(bytes) = wanted.bytes(&policy) else { return Ok(()) };
        let freed = self.remove(&plan(&found.images, &found.in_use, &self.records, &policy, bytes, now)).await;
        if freed < bytes {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found \
                 {freed} bytes eligible to free."
            );
            self.tell("FreeDiskSpaceFailed", message);
        }
        Ok(())
    }

    /// Removes all that may go.
    async fn free(&mut self, now: Moment) -> Result<u64, CriError> {
        let found = self.found(now).await?;
        let policy = self.args.policy;
        let bytes = Wanted::All.bytes(&policy).unwrap_or(0);
        Ok(self.remove(&plan(&found.images, &found.in_use, &self.records, &policy, bytes, now)).await)
    }

    /// The file system that images are on.
    async fn disk(&self) -> Result<Option<FileSystem>, CriError> {
        let answer = self.args.cri.image_fs_info(v1::ImageFsInfoRequest::default()).await?;
        let id = answer.image_filesystems.into_iter().find_map(|found| found.fs_id);
        Ok(id.and_then(|id| FileSystem::of(Path::new(&id.mountpoint)).ok()))
    }

    /// Removes images; those that can't be removed stay. The bytes that were freed.
    async fn remove(&self, images: &[ImageFact]) -> u64 {
        let mut freed = 0_u64;
        for image in images {
            let spec = v1::ImageSpec { image: image.id.clone(), ..v1::ImageSpec::default() };
            match self.args.cri.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await {
                Ok(_) => {
                    freed = freed.saturating_add(image.bytes);
                    tracing::info!(image = image.id, bytes = image.bytes, "an unused image is removed");
                }
                Err(error) => tracing::warn!(image = image.id, %error, "an unused image can't be removed"),
            }
        }
        freed
    }

    fn tell(&self, reason: &str, message: String) {
        self.args.recorder.about(reference(&self.args.node), "Warning", reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_use_by_any_of_its_names() {
        let image = |id: &str, tag: &str| v1::Image {
            id: id.to_owned(),
            repo_tags: vec![tag.to_owned()],
            repo_digests: vec![format!("{tag}@{id}")],
            ..v1::Image::default()
        };
        let images = [image("1", "a"), image("2", "b"), image("3", "c"), image("4", "d"), image("5", "e")];
        let by = |spec: &str, reference: &str| v1::Container {
            image: Some(v1::ImageSpec { image: spec.to_owned(), ..v1::ImageSpec::default() }),
            image_ref: reference.to_owned(),
            ..v1::Container::default()
        };
        let containers = [by("a", ""), by("", "2"), by("c@3", "")];
        let used = in_use(&images, &containers, &["d".to_owned()]);
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    }
}
