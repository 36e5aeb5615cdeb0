//! Brings the files in order: reads what is there, asks the plan, and carries it out, one file after the other.
//!
//! Authorities, the keys of service accounts and passwords are durable when they are used. All the rest is made again by
//! the next start if it is damaged, so nobody waits for the disk to have it.
//!
//! It may die anywhere. Keys are written before their certificates, and an authority before what it signs; so whatever
//! half of the work is done, the next start finds files that the plan knows what to do with, and keeps every authority.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::config::PkiConfig;
use crate::credentials;
use crate::error::{MaterialError, PkiError};
use crate::files::{self, Files, PUBLIC, SECRET};
use crate::key::PrivateKey;
use crate::plan::{Action, Found, Half, Pair, Plan, plan};
use crate::publish::{AuthorityPair, KeyPair, Snapshot};
use crate::table::{AUTHORITIES, Authority, DIRECTORIES, LEAVES, Leaf, SHARED_KEYS};
use crate::x509::{Request, issue, pem, self_signed};

/// The keys that sign and verify the tokens of service accounts.
const SERVICE_KEYS: &str = "service.key";
/// The first of them alone.
const SERVICE_CURRENT_KEY: &str = "service.current.key";

/// Everything in order, at this time. Changes no file that is as it should be.
///
/// # Errors
/// A file can't be read or written, or what an operator put there can't be used.
pub(crate) fn keep(config: &PkiConfig, files: &mut Files, now: Duration) -> Result<Snapshot, PkiError> {
    for folder in DIRECTORIES {
        files.directory(&config.server_dir.join(folder))?;
    }
    if let Some(node) = &config.node {
        files.directory(&node.agent_dir)?;
    }
    adopt_token_authority(config, files)?;
    let found = look(config)?;
    let planned = plan(&found, config, now)
        .map_err(|(name, source)| PkiError::Authority { path: config.certificate(name.row().stem), source })?;
    carry_out(config, files, &planned, now)?;
    keep_service_keys(config, files)?;
    for row in SHARED_KEYS.iter().filter(|row| row.drops_certificate) {
        files.remove(&config.certificate(row.stem))?;
    }
    let snapshot = load(config)?;
    credentials::keep(config, files, &snapshot)?;
    files.settle()?;
    Ok(snapshot)
}

/// Old releases called the server's authority by another name. The key first: the certificate says that it is done.
fn adopt_token_authority(config: &PkiConfig, files: &mut Files) -> Result<(), PkiError> {
    let stem = Authority::Server.row().stem;
    let (old_certificate, old_key) = (config.certificate("token-ca"), config.key("token-ca"));
    if !files::exists(&old_certificate) || !files::exists(&old_key) || files::exists(&config.certificate(stem)) {
        return Ok(());
    }
    let key = config.key(stem);
    if !files::exists(&key) {
        files.second_name(&key, &old_key)?;
    } else if files::read(&key)? != files::read(&old_key)? {
        return Ok(()); // Another authority was begun here.
    }
    files.second_name(&config.certificate(stem), &old_certificate)
}

fn half<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, MaterialError>) -> Result<Half<T>, PkiError> {
    Ok(match files::read(path)?.map(|bytes| parse(&bytes)) {
        None => Half::Missing,
        Some(Ok(found)) => Half::Good(found),
        Some(Err(error)) => Half::Broken(error),
    })
}

fn pair(certificate: &Path, key: &Path) -> Result<Pair, PkiError> {
    Ok(Pair { certificates: half(certificate, pem::certificates)?, key: half(key, PrivateKey::of_pem)? })
}

fn wanted_leaves(config: &PkiConfig) -> impl Iterator<Item = Leaf> {
    LEAVES.iter().map(|row| row.name).filter(|name| config.wants(*name))
}

fn look(config: &PkiConfig) -> Result<Found, PkiError> {
    let mut found = Found { authorities: BTreeMap::new(), leaves: BTreeMap::new(), shared_keys: Vec::new() };
    for row in AUTHORITIES {
        found.authorities.insert(row.name, pair(&config.certificate(row.stem), &config.key(row.stem))?);
    }
    for name in wanted_leaves(config) {
        found.leaves.insert(name, pair(&config.leaf_certificate(name), &config.leaf_key(name))?);
    }
    for row in SHARED_KEYS {
        found.shared_keys.push(half(&config.key(row.stem), PrivateKey::of_pem)?);
    }
    Ok(found)
}

fn carry_out(config: &PkiConfig, files: &mut Files, plan: &Plan, now: Duration) -> Result<(), PkiError> {
    for (name, action) in &plan.authorities {
        let row = name.row();
        if let Action::Make { reason, new_key } = action {
            tracing::info!(authority = row.stem, %reason, "making a certificate authority");
            let certificate = config.certificate(row.stem);
            if *new_key {
                // An old one that lost its key would, with the new key beside it, look like an operator's mistake.
                files.remove(&certificate)?;
                files.settle()?;
            }
            let unusable = |source| PkiError::Material { path: certificate.clone(), source };
            let key = key_for(&config.key(row.stem), files, *new_key, Files::write)?;
            let common_name = format!("{}-ca@{}", row.prefix, now.as_secs());
            let made = self_signed(&common_name, &key, now).map_err(unusable)?;
            files.write(&certificate, made.to_pem().as_bytes(), PUBLIC)?;
        }
        if row.without_chain {
            let bundle = authority(config, *name)?;
            let path = config.tls(&format!("{}.nochain.crt", row.stem));
            files.write_replaceable(&path, bundle.certificate().to_pem().as_bytes(), PUBLIC)?;
        }
    }
    for (name, action) in &plan.leaves {
        if let Action::Make { reason, new_key } = action {
            let row = name.row();
            tracing::info!(certificate = row.stem, %reason, "making a certificate");
            make_leaf(config, files, *name, *new_key, now)?;
        }
    }
    for row in &plan.shared_keys {
        key_for(&config.key(row.stem), files, true, Files::write_replaceable)?;
    }
    Ok(())
}

fn make_leaf(config: &PkiConfig, files: &mut Files, name: Leaf, new_key: bool, now: Duration) -> Result<(), PkiError> {
    let row = name.row();
    let signer = authority(config, row.signer)?;
    let key = key_for(&config.leaf_key(name), files, new_key, Files::write_replaceable)?;
    let request = Request {
        common_name: &config.common_name(row),
        organizations: row.organizations,
        sans: &config.sans(row),
        usage: row.usage,
    };
    let path = config.leaf_certificate(name);
    let made = issue(&request, key.public_key_info(), (signer.certificate(), signer.key()), now);
    let made = made.map_err(|source| PkiError::Material { path: path.clone(), source })?;
    let text = made.to_pem() + &pem::bundle(signer.certificates());
    // On a node nobody but root reads any of it.
    files.write_replaceable(&path, text.as_bytes(), if name.is_of_node() { SECRET } else { PUBLIC })
}

/// How a file is written.
type Write = fn(&mut Files, &Path, &[u8], u32) -> Result<(), PkiError>;

/// The key of a pair, made if need be.
fn key_for(path: &Path, files: &mut Files, new: bool, write: Write) -> Result<PrivateKey, PkiError> {
    let unusable = |source| PkiError::Material { path: path.to_owned(), source };
    if !new && let Some(bytes) = files::read(path)? {
        return PrivateKey::of_pem(&bytes).map_err(unusable);
    }
    let key = PrivateKey::generate_ec().map_err(unusable)?;
    write(files, path, key.to_pem().as_bytes(), SECRET)?;
    Ok(key)
}

fn keep_service_keys(config: &PkiConfig, files: &mut Files) -> Result<(), PkiError> {
    let path = config.tls(SERVICE_KEYS);
    let unusable = |source| PkiError::Keys { path: path.clone(), source };
    let keys = match files::read(&path)? {
        Some(bytes) => PrivateKey::all_of_pem(&bytes).map_err(unusable)?,
        None => {
            let key = PrivateKey::generate_rsa().map_err(unusable)?;
            files.write(&path, key.to_pem().as_bytes(), SECRET)?;
            vec![key]
        }
    };
    let first = keys.first().map(PrivateKey::to_pem).unwrap_or_default();
    files.write_replaceable(&config.tls(SERVICE_CURRENT_KEY), first.as_bytes(), SECRET)
}

fn complete(path: &Path, key: &Path) -> Result<KeyPair, PkiError> {
    let unusable = |source| PkiError::Material { path: path.to_owned(), source };
    let absent = |what| unusable(MaterialError::Absent { what });
    let certificates = files::read(path)?.ok_or_else(|| absent("certificate"))?;
    let key = files::read(key)?.ok_or_else(|| absent("key"))?;
    let certificates = pem::certificates(&certificates).map_err(unusable)?;
    KeyPair::new(certificates, PrivateKey::of_pem(&key).map_err(unusable)?).map_err(unusable)
}

fn authority(config: &PkiConfig, name: Authority) -> Result<AuthorityPair, PkiError> {
    let stem = name.row().stem;
    let path = config.certificate(stem);
    AuthorityPair::new(complete(&path, &config.key(stem))?).map_err(|source| PkiError::Authority { path, source })
}

/// All that is there, for those in this process.
fn load(config: &PkiConfig) -> Result<Snapshot, PkiError> {
    let mut authorities = BTreeMap::new();
    for row in AUTHORITIES {
        authorities.insert(row.name, authority(config, row.name)?);
    }
    let mut leaves = BTreeMap::new();
    for name in wanted_leaves(config) {
        leaves.insert(name, complete(&config.leaf_certificate(name), &config.leaf_key(name))?);
    }
    let path = config.tls(SERVICE_KEYS);
    let bytes = files::read(&path)?.unwrap_or_default();
    let keys = PrivateKey::all_of_pem(&bytes).map_err(|source| PkiError::Keys { path, source })?;
    Ok(Snapshot::new(authorities, leaves, keys))
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
