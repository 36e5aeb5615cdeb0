//! Volumes that somebody else has: persistent ones, NFS, storage drivers'.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;

use super::files::namespace;
use super::{Maker, Upkeep, Use, of_persistent};
use crate::claims::{Backing, backing, bound_volume, claim_of, is_block};
use crate::csi::{CsiVolume, growth};
use crate::disk::{Done, Job, What};
use crate::error::VolumeError;
use crate::paths::{LOCAL, NFS};
use crate::types::PodIdentity;

/// How long `mount` may take: its server may be away.
const MOUNT_LIMIT: Duration = Duration::from_secs(110);
/// How much of what a program says is passed on, in bytes.
const OUTPUT_BYTES_MAX: usize = 1024;

impl Maker {
    pub(super) async fn mounted(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &Volume,
        how: Use,
        upkeep: &mut Upkeep,
    ) -> Result<What, VolumeError> {
        if let Some(name) = claim_of(pod, volume) {
            return self.claimed(pod, who, volume, &name, how, upkeep).await;
        }
        if let Some(nfs) = &volume.nfs {
            return self.nfs(who, &volume.name, nfs, nfs.read_only == Some(true), &[]).await;
        }
        if let Some(inline) = &volume.csi {
            let (made, wants_care) =
                self.csi.set_up(self, pod, who, &CsiVolume::inline(pod, &volume.name, inline)).await?;
            upkeep.wants_care |= wants_care;
            return Ok(made);
        }
        Err(VolumeError::Refused(format!(
            "no volume plugin of this node matches volume {:?}: {}",
            volume.name,
            kind(volume)
        )))
    }

    /// A claim of the pod's, and the persistent volume that it stands for.
    async fn persistent(
        &self,
        pod: &Pod,
        named: &Volume,
        name: &str,
    ) -> Result<(PersistentVolumeClaim, PersistentVolume), VolumeError> {
        let client = self.connect.client();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace(pod));
        let claim = claims.get(name).await.map_err(VolumeError::api("failed to fetch PVC from API server"))?;
        // One that was made for the pod is nobody else's.
        let volume_name = bound_volume(&claim, pod, named.ephemeral.is_some())?;
        let volumes: Api<PersistentVolume> = Api::all(client);
        let volume = volumes.get(volume_name).await;
        let volume = volume.map_err(VolumeError::api(format!("failed to fetch PV {volume_name:?} from API server")))?;
        Ok((claim, volume))
    }

    /// What a claim stands for.
    async fn claimed(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        named: &Volume,
        name: &str,
        how: Use,
        upkeep: &mut Upkeep,
    ) -> Result<What, VolumeError> {
        let (claim, volume) = self.persistent(pod, named, name).await?;
        let read_only = is_read_only(named);
        let is_block = is_block(&volume, name, how.is_mounted, how.is_device)?;
        let place = volume.metadata.name.clone().unwrap_or_default();
        upkeep.persistent.insert(named.name.clone(), place.clone());
        upkeep.plugins.insert(named.name.clone(), of_persistent(&volume));
        match backing(&volume, &claim)? {
            Backing::Local(device) if is_block => Ok(What::Device { plugin: LOCAL, place, device, read_only }),
            Backing::Local(from) => Ok(What::Local { place, from, read_only }),
            Backing::HostPath(source) => {
                let kind = source.type_.unwrap_or_default();
                Ok(What::HostPath { path: PathBuf::from(source.path), kind, read_only })
            }
            Backing::Nfs(source) => {
                let spec = volume.spec.unwrap_or_default();
                let read_only = read_only || source.read_only == Some(true);
                self.nfs(who, &place, &source, read_only, spec.mount_options.as_deref().unwrap_or_default()).await
            }
            Backing::Csi(source) => {
                let mut wanted = CsiVolume::persistent(&volume, *source, read_only, is_block);
                wanted.growth = growth(&volume, &claim);
                let (made, wants_care) = self.csi.set_up(self, pod, who, &wanted).await?;
                upkeep.wants_care |= wants_care;
                Ok(made)
            }
        }
    }

    /// Asks a storage driver, if one has the volume, what it wants by now. What fails is tried with the next look.
    pub(super) async fn look_after(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &Volume,
        how: Use,
        upkeep: &mut Upkeep,
    ) {
        match self.wants_care(pod, who, volume, how, upkeep).await {
            Ok(wants_care) => upkeep.wants_care |= wants_care,
            Err(error) => {
                upkeep.wants_care = true;
                let error = error.event();
                tracing::warn!(pod = who.uid, volume = volume.name, error, "a volume stays as it is for now");
            }
        }
    }

    async fn wants_care(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &Volume,
        how: Use,
        upkeep: &mut Upkeep,
    ) -> Result<bool, VolumeError> {
        if let Some(inline) = &volume.csi {
            return self.csi.look_after(self, pod, who, &CsiVolume::inline(pod, &volume.name, inline)).await;
        }
        let Some(name) = claim_of(pod, volume) else { return Ok(false) };
        let (claim, found) = self.persistent(pod, volume, &name).await?;
        let place = found.metadata.name.clone().unwrap_or_default();
        upkeep.persistent.insert(volume.name.clone(), place);
        upkeep.plugins.insert(volume.name.clone(), of_persistent(&found));
        let Backing::Csi(source) = backing(&found, &claim)? else { return Ok(false) };
        let is_block = is_block(&found, &name, how.is_mounted, how.is_device)?;
        let mut wanted = CsiVolume::persistent(&found, *source, is_read_only(volume), is_block);
        wanted.growth = growth(&found, &claim);
        self.csi.look_after(self, pod, who, &wanted).await
    }

    async fn nfs(
        &self,
        who: &PodIdentity,
        place: &str,
        source: &NFSVolumeSource,
        read_only: bool,
        options: &[String],
    ) -> Result<What, VolumeError> {
        if source.server.is_empty() || source.server.starts_with('-') || !source.path.starts_with('/') {
            return Err(VolumeError::Refused(format!("NFS source {:?}:{:?} is not valid", source.server, source.path)));
        }
        let path = self.paths.volume(&who.uid, NFS, place)?;
        let there =
            What::There { path: path.clone(), read_only, is_block: false, owned: false, selinux_relabel: false };
        let made = self.disks.run(&who.uid, Job::MountPoint { directory: path.clone(), at: path.clone() }).await?;
        if matches!(made, Done::Is(true)) {
            return Ok(there);
        }
        let server = if source.server.contains(':') { format!("[{}]", source.server) } else { source.server.clone() };
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        if read_only {
            options.push("ro");
        }
        let joined = options.join(",");
        let mut arguments = vec!["-t", "nfs"];
        if !joined.is_empty() {
            arguments.extend(["-o", &joined]);
        }
        let (from, at) = (format!("{server}:{}", source.path), path.to_string_lossy().into_owned());
        arguments.extend([from.as_str(), at.as_str()]);
        self.run(&arguments).await?;
        Ok(there)
    }

    /// Runs the host's `mount`. Its words are passed on, but clipped.
    async fn run(&self, arguments: &[&str]) -> Result<(), VolumeError> {
        let program = &self.config.mount_program;
        let fail = |output: String| VolumeError::Program { program: program.display().to_string(), output };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(MOUNT_LIMIT, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(fail("it is not installed on this node".to_owned()));
            }
            Ok(Err(error)) => return Err(fail(error.to_string())),
            Err(_) => return Err(fail(format!("no end within {} s", MOUNT_LIMIT.as_secs()))),
        };
        if output.status.success() {
            return Ok(());
        }
        let said: Vec<u8> = output.stderr.into_iter().chain(output.stdout).take(OUTPUT_BYTES_MAX).collect();
        Err(fail(format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim())))
    }
}

fn is_read_only(volume: &Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

/// What a volume is that nobody here can make.
fn kind(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.rbd.is_some(), "rbd"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cinder.is_some(), "cinder"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
        (volume.flocker.is_some(), "flocker"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.image.is_some(), "image"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map_or("it has no source", |(_, kind)| kind)
}
