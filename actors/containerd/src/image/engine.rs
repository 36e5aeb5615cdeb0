//! containerd's own API, as far as images need it.

use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, GetImageRequest, Image, Info, Lease, ListImagesRequest,
    ListRequest, ReadContentRequest, UpdateImageRequest, UpdateRequest,
};
use k3sd_cri::Code;
use prost_types::FieldMask;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::error::ImportError;

/// The namespace in which CRI keeps its images.
const NAMESPACE: &str = "k8s.io";
/// The label that says until when a lease holds.
pub(crate) const EXPIRES: &str = "containerd.io/gc.expire";
/// The largest manifest or configuration that is read.
const DOCUMENT_BYTES_MAX: i64 = 8 << 20;

/// What containerd says no to, and how.
pub(crate) fn refused(action: &'static str) -> impl Fn(Status) -> ImportError {
    move |status| {
        let away = status.code() == Code::Unavailable || std::error::Error::source(&status).is_some();
        ImportError::Engine { action, message: status.message().to_owned(), away }
    }
}

/// Nothing where something is not there.
fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// A connection to containerd, and the lease that keeps what was made through it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    channel: Channel,
    lease: Option<String>,
}

impl Store {
    /// Without a lease: whatever nobody refers to may go at any time.
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, lease: None }
    }

    /// A request in our namespace, under the lease; of a message, or of a stream of them.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        if let Some(lease) = self.lease.as_ref().and_then(|lease| MetadataValue::try_from(lease).ok()) {
            request.metadata_mut().insert("containerd-lease", lease);
        }
        request
    }

    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    /// The same connection under a new lease of this name, which ends by itself at `expires` (RFC 3339).
    pub(crate) async fn leased(&self, id: String, expires: String) -> Result<Self, ImportError> {
        let labels = HashMap::from([(EXPIRES.to_owned(), expires)]);
        let request = self.request(CreateRequest { id: id.clone(), labels });
        LeasesClient::new(self.channel.clone()).create(request).await.map_err(refused("make a lease"))?;
        Ok(Self { channel: self.channel.clone(), lease: Some(id) })
    }

    /// Ends a lease. Content that nobody refers to is removed, now if `sync`.
    pub(crate) async fn release(&self, id: &str, sync: bool) -> Result<(), ImportError> {
        let request = self.request(DeleteRequest { id: id.to_owned(), sync });
        let ended = LeasesClient::new(self.channel.clone()).delete(request).await;
        found(ended).map(drop).map_err(refused("end a lease"))
    }

    /// All leases.
    pub(crate) async fn leases(&self) -> Result<Vec<Lease>, ImportError> {
        let request = self.request(ListRequest::default());
        let answer = LeasesClient::new(self.channel.clone()).list(request).await.map_err(refused("list leases"))?;
        Ok(answer.into_inner().leases)
    }

    /// The name of the lease.
    pub(crate) fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// Reads a small blob; `None` when it is not there.
    pub(crate) async fn document(&self, digest: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let message = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut client = self.content();
        let Some(answer) = found(client.read(self.request(message)).await).map_err(refused("read a blob"))? else {
            return Ok(None);
        };
        let (mut stream, mut bytes) = (answer.into_inner(), Vec::new());
        loop {
            match found(stream.message().await).map_err(refused("read a blob"))? {
                None => return Ok(None),
                Some(None) => return Ok(Some(bytes)),
                Some(Some(chunk)) => bytes.extend(chunk.data),
            }
            if bytes.len() as i64 > DOCUMENT_BYTES_MAX {
                return Err(ImportError::Content(format!("the manifest {digest} is too large")));
            }
        }
    }

    /// Adds labels to a blob.
    pub(crate) async fn label(&self, digest: &str, labels: BTreeMap<String, String>) -> Result<(), ImportError> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Info { digest: digest.to_owned(), labels: labels.into_iter().collect(), ..Default::default() };
        let message = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        self.content().update(self.request(message)).await.map_err(refused("label a blob"))?;
        Ok(())
    }

    /// An image by name.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Image>, ImportError> {
        let message = GetImageRequest { name: name.to_owned() };
        let answer = found(self.images().get(self.request(message)).await).map_err(refused("look for an image"))?;
        Ok(answer.and_then(|answer| answer.into_inner().image))
    }

    /// All images with a label.
    pub(crate) async fn images_with(&self, filter: &str) -> Result<Vec<Image>, ImportError> {
        let message = ListImagesRequest { filters: vec![filter.to_owned()] };
        let answer = self.images().list(self.request(message)).await.map_err(refused("list images"))?;
        Ok(answer.into_inner().images)
    }

    /// Makes an image, or lets its name mean this one from now on. Other labels of an image stay.
    pub(crate) async fn put_image(&self, image: Image) -> Result<(), ImportError> {
        let message = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        match self.images().create(self.request(message)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let labels = image.labels.keys().map(|key| format!("labels.{key}"));
                let paths = ["target".to_owned()].into_iter().chain(labels).collect();
                self.change_image(image, paths).await
            }
            Err(status) => Err(refused("make an image")(status)),
        }
    }

    /// Changes these parts of an image.
    pub(crate) async fn change_image(&self, image: Image, paths: Vec<String>) -> Result<(), ImportError> {
        let update_mask = Some(FieldMask { paths });
        let message = UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
        self.images().update(self.request(message)).await.map_err(refused("change an image"))?;
        Ok(())
    }
}
