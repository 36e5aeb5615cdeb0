//! The volumes of a pod.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::super::read::{At, Errors};
use super::environment::{FILE_FIELDS, check_field_reference, check_resource_reference};
use super::mounts::{file_name, steps_back};

/// Permissions that a file can have.
const MODE_MAX: i64 = 0o777;

/// Seconds that a token for a file is good for, at least.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Seconds that a token for a file is good for, at most.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// A check of what stands under the name of a kind of volume.
type Check = fn(&At<'_>, &mut Errors);

/// The kinds of volumes, with what each requires; in the order in which a second one is found to be too many.
const SOURCES: &[(&str, Check)] = &[
    ("emptyDir", |at, out| {
        if at.quantity("sizeLimit").is_some_and(|limit| limit.signum() < 0) {
            out.push(at.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity"));
        }
    }),
    ("hostPath", check_host_path),
    ("gitRepo", |at, out| require(at, &["repository"], out)),
    ("gcePersistentDisk", |at, out| require(at, &["pdName"], out)),
    ("awsElasticBlockStore", |at, out| require(at, &["volumeID"], out)),
    ("secret", |at, out| check_files(at, "secretName", out)),
    ("nfs", check_nfs),
    ("iscsi", |at, out| require(at, &["targetPortal", "iqn"], out)),
    ("glusterfs", |at, out| require(at, &["endpoints", "path"], out)),
    ("flocker", |_, _| {}),
    ("persistentVolumeClaim", |at, out| require(at, &["claimName"], out)),
    ("rbd", |at, out| require(at, &["monitors", "image"], out)),
    ("cinder", |at, out| require(at, &["volumeID"], out)),
    ("cephfs", |at, out| require(at, &["monitors"], out)),
    ("quobyte", |at, out| require(at, &["registry", "volume"], out)),
    ("downwardAPI", |at, out| {
        check_mode(at, "defaultMode", out);
        check_shown(at, &mut BTreeSet::new(), out);
    }),
    ("fc", |_, _| {}),
    ("configMap", |at, out| check_files(at, "name", out)),
    ("azureFile", |at, out| require(at, &["secretName", "shareName"], out)),
    ("flexVolume", |at, out| require(at, &["driver"], out)),
    ("vsphereVolume", |at, out| require(at, &["volumePath"], out)),
    ("photonPersistentDisk", |at, out| require(at, &["pdID"], out)),
    ("portworxVolume", |at, out| require(at, &["volumeID"], out)),
    ("azureDisk", |at, out| require(at, &["diskName", "diskURI"], out)),
    ("storageos", |_, _| {}),
    ("projected", check_projected),
    ("scaleIO", |at, out| require(at, &["gateway", "system", "volumeName"], out)),
    ("csi", check_csi),
    ("ephemeral", |at, out| {
        if !at.has("volumeClaimTemplate") {
            out.push(at.required("volumeClaimTemplate", ""));
        }
    }),
    ("image", |at, out| {
        require(at, &["reference"], out);
        at.required_of("pullPolicy", &["Always", "IfNotPresent", "Never"], out);
    }),
];

/// `volumes` of a pod.
pub(super) fn check(spec: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for volume in spec.items("volumes") {
        let before = out.len();
        check_source(&volume, out);
        volume.name("name", names::dns_label, out);
        if seen.contains(volume.text("name")) {
            out.push(volume.duplicate("name"));
        }
        if out.len() == before {
            seen.insert(volume.text("name"));
        }
    }
}

fn check_source(volume: &At<'_>, out: &mut Errors) {
    let mut found = false;
    for (name, check) in SOURCES {
        let Some(source) = volume.set(name) else { continue };
        if found {
            out.push(source.forbidden("", "may not specify more than 1 volume type"));
        } else {
            found = true;
            check(&source, out);
        }
    }
    if !found {
        out.push(volume.required("", "must specify a volume type"));
    }
}

/// What stands under the name of a kind of volume, wherever it stands.
pub(in super::super) fn check_volume_source(name: &str, source: &At<'_>, out: &mut Errors) {
    if let Some((_, check)) = SOURCES.iter().find(|(known, _)| *known == name) {
        check(source, out);
    }
}

/// A path that has no steps back.
pub(in super::super) fn check_descending(at: &At<'_>, name: &str, out: &mut Errors) {
    if steps_back(at.text(name)) {
        out.push(at.invalid(name, "must not contain '..'"));
    }
}

/// Strings or lists that have to be there.
fn require(at: &At<'_>, names: &[&str], out: &mut Errors) {
    for name in names.iter().filter(|name| at.text(name).is_empty() && at.count(name) == 0) {
        out.push(at.required(name, ""));
    }
}

fn check_mode(at: &At<'_>, name: &str, out: &mut Errors) {
    if at.number(name).is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        out.push(at.invalid(name, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

fn check_host_path(at: &At<'_>, out: &mut Errors) {
    if at.text("path").is_empty() {
        out.push(at.required("path", ""));
        return;
    }
    if steps_back(at.text("path")) {
        out.push(at.invalid("path", "must not contain '..'"));
    }
    let kinds = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    at.optional_of("type", &kinds, out);
}

fn check_nfs(at: &At<'_>, out: &mut Errors) {
    require(at, &["server", "path"], out);
    if !at.text("path").starts_with('/') {
        out.push(at.invalid("path", "must be an absolute path"));
    }
}

/// Files made from the keys of a Secret or ConfigMap, whose name stands in `name`.
fn check_files(at: &At<'_>, name: &str, out: &mut Errors) {
    require(at, &[name], out);
    check_mode(at, "defaultMode", out);
    check_items(at, &mut BTreeSet::new(), false, out);
}

fn check_items<'a>(at: &At<'a>, seen: &mut BTreeSet<&'a str>, unique: bool, out: &mut Errors) {
    for item in at.items("items") {
        require(&item, &["key"], out);
        item.name("path", file_name, out);
        check_mode(&item, "mode", out);
        if unique {
            check_unique(at, item.text("path"), seen, out);
        }
    }
}

/// Fields of the pod as files. Upstream doesn't say which one of the list is wrong.
fn check_shown<'a>(at: &At<'a>, seen: &mut BTreeSet<&'a str>, out: &mut Errors) {
    for item in at.items("items") {
        let item = At { value: item.value, path: at.path.clone() };
        item.name("path", file_name, out);
        match (item.set("fieldRef"), item.set("resourceFieldRef")) {
            (Some(field), resource) => {
                check_field_reference(&field, FILE_FIELDS, out);
                if resource.is_some() {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    out.push(Error::invalid(&item.path, "resource", detail));
                }
            }
            (None, Some(resource)) => check_resource_reference(&resource, true, out),
            (None, None) => out.push(item.required("", "one of fieldRef and resourceFieldRef is required")),
        }
        check_mode(&item, "mode", out);
        seen.insert(item.text("path"));
    }
}

fn check_csi(at: &At<'_>, out: &mut Errors) {
    at.name("driver", names::dns_subdomain, out);
    if let Some(secret) = at.set("nodePublishSecretRef") {
        require(&secret, &["name"], out);
    }
}

fn check_projected(at: &At<'_>, out: &mut Errors) {
    check_mode(at, "defaultMode", out);
    let mut seen = BTreeSet::new();
    for source in at.items("sources") {
        let mut found = false;
        for name in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
            let Some(projected) = source.set(name) else { continue };
            if found {
                out.push(projected.forbidden("", "may not specify more than 1 volume type per source"));
                continue;
            }
            found = true;
            check_projection(name, &projected, &mut seen, out);
        }
        if !found {
            out.push(source.required("", "must specify a volume type"));
        }
    }
}

fn check_projection<'a>(name: &str, at: &At<'a>, seen: &mut BTreeSet<&'a str>, out: &mut Errors) {
    match name {
        "downwardAPI" => check_shown(at, seen, out),
        "serviceAccountToken" => {
            let seconds = at.number("expirationSeconds").unwrap_or_default();
            if seconds < TOKEN_SECONDS_MIN {
                out.push(at.invalid_number("expirationSeconds", "may not specify a duration less than 10 minutes"));
            }
            if seconds > TOKEN_SECONDS_MAX {
                out.push(at.invalid_number("expirationSeconds", "may not specify a duration larger than 2^32 seconds"));
            }
            at.name("path", file_name, out);
            check_unique(at, at.text("path"), seen, out);
        }
        "clusterTrustBundle" => {
            match (at.has("name"), at.has("signerName")) {
                (true, true) => {
                    out.push(at.invalid("", "only one of name and signerName may be used"));
                }
                (false, false) => out.push(at.required("", "either name or signerName must be specified")),
                (true, false) => at.name("name", names::dns_subdomain, out),
                (false, true) => {}
            }
            at.name("path", file_name, out);
            check_unique(at, at.text("path"), seen, out);
        }
        _ => {
            require(at, &["name"], out);
            check_items(at, seen, true, out);
        }
    }
}

fn check_unique<'a>(at: &At<'a>, path: &'a str, seen: &mut BTreeSet<&'a str>, out: &mut Errors) {
    if !path.is_empty() && !seen.insert(path) {
        out.push(Error::invalid(&at.path, path, "conflicting duplicate paths"));
    }
}
