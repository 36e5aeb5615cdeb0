//! What is derived from certificates and tokens: kubeconfigs, the password file, the files with the join tokens.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use crate::config::{AdminKubeconfig, PkiConfig};
use crate::error::PkiError;
use crate::files::{self, Files, SECRET};
use crate::key::random_hex;
use crate::kubeconfig::{Kubeconfig, Source};
use crate::passwd::Passwd;
use crate::publish::Snapshot;
use crate::table::{Authority, KUBECONFIGS, Leaf, NODE_KUBECONFIGS};
use crate::token::{Token, ca_hash, full, new_password, normalize};
use crate::x509::pem;

/// The pre-shared key of a flannel backend that is gone; joining servers still expect it.
const IPSEC_KEY: &str = "ipsec.psk";

/// All of it in order.
///
/// # Errors
/// A file can't be read or written, or a configured token is none.
pub(crate) fn keep(config: &PkiConfig, files: &mut Files, snapshot: &Snapshot) -> Result<(), PkiError> {
    let key = config.cred(IPSEC_KEY);
    if !files::exists(&key) {
        let text = random_hex::<48>().map_err(|source| PkiError::Material { path: key.clone(), source })?;
        files.write(&key, format!("{text}\n").as_bytes(), SECRET)?;
    }
    keep_tokens(config, files)?;
    for (name, leaf) in KUBECONFIGS {
        let yaml = component(config, *leaf);
        files.write_replaceable(&config.cred(name), yaml.as_bytes(), SECRET)?;
    }
    if let Some(node) = &config.node {
        for authority in [Authority::Client, Authority::Server] {
            let path = node.agent_dir.join(format!("{authority}.crt"));
            files.write_replaceable(&path, snapshot.authority(authority).bundle_pem().as_bytes(), SECRET)?;
        }
        for (name, leaf) in NODE_KUBECONFIGS {
            files.write_replaceable(&node.agent_dir.join(name), component(config, *leaf).as_bytes(), SECRET)?;
        }
    }
    match &config.admin {
        Some(admin) => keep_admin(admin, files, snapshot),
        None => Ok(()),
    }
}

fn component(config: &PkiConfig, leaf: Leaf) -> String {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let node = config.node.as_ref().filter(|_| leaf.is_of_node());
    let server_ca = Authority::Server.row().stem;
    let authority =
        node.map_or_else(|| config.certificate(server_ca), |node| node.agent_dir.join(format!("{server_ca}.crt")));
    let kubeconfig = Kubeconfig {
        url: &config.api_url,
        names: ("local", "user", "Default"),
        authority: Source::File(&path(authority)),
        certificate: Source::File(&path(config.leaf_certificate(leaf))),
        key: Source::File(&path(config.leaf_key(leaf))),
    };
    kubeconfig.to_yaml()
}

fn keep_admin(admin: &AdminKubeconfig, files: &mut Files, snapshot: &Snapshot) -> Result<(), PkiError> {
    let pair = snapshot.leaf(Leaf::Admin).expect("it is wanted everywhere");
    let kubeconfig = Kubeconfig {
        url: &admin.url,
        names: (&admin.name, &admin.name, &admin.name),
        authority: Source::Inline(&snapshot.authority(Authority::Server).bundle_pem()),
        certificate: Source::Inline(&pem::bundle(pair.certificates())),
        key: Source::Inline(&pair.key().to_pem()),
    };
    let failed = |path: &Path, source| PkiError::File { action: "resolve", path: path.to_owned(), source };
    let output = admin.output.as_ref().unwrap_or(&admin.default_path);
    let output = std::path::absolute(output).map_err(|source| failed(output, source))?;
    for path in [&output, &admin.default_path] {
        keep_parent(path)?;
    }
    files.write_replaceable(&output, kubeconfig.to_yaml().as_bytes(), admin.mode)?;
    if let Some(group) = &admin.group {
        keep_group(&output, group)?;
    }
    if output != admin.default_path {
        files.link_to(&admin.default_path, &output)?;
    }
    Ok(())
}

/// Others may pass through: the file itself says who may read it.
fn keep_parent(path: &Path) -> Result<(), PkiError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|source| PkiError::File {
        action: "make directory",
        path: folder.to_owned(),
        source,
    })
}

fn keep_group(path: &Path, name: &str) -> Result<(), PkiError> {
    let group = group_id(name).ok_or_else(|| PkiError::Group { name: name.to_owned() })?;
    if fs::metadata(path).is_ok_and(|found| found.gid() == group) {
        return Ok(());
    }
    let changed = chown(path, None, Some(group));
    changed.map_err(|source| PkiError::File { action: "change group of", path: path.to_owned(), source })
}

fn group_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

/// Passwords are taken from the configuration, else from the password file, else from the token file, else made.
fn keep_tokens(config: &PkiConfig, files: &mut Files) -> Result<(), PkiError> {
    let path = config.cred("passwd");
    let mut passwd = Passwd::parse(&String::from_utf8_lossy(&files::read(&path)?.unwrap_or_default()));
    let token_path = config.server_dir.join("token");
    let server = match &config.tokens.server {
        Some(text) => normalize(text).map_err(|source| PkiError::Token { what: "token", source })?,
        None => match passwd.password("server").map(str::to_owned).or_else(|| password_in(&token_path)) {
            Some(found) => found,
            None => new_password().map_err(|source| PkiError::Material { path: path.clone(), source })?,
        },
    };
    let agent = match &config.tokens.agent {
        Some(text) => normalize(text).map_err(|source| PkiError::Token { what: "agent token", source })?,
        None => server.clone(),
    };
    passwd.set("node", "k3s:agent", &agent);
    passwd.set("server", "k3s:server", &server);
    files.write(&path, passwd.to_csv().as_bytes(), SECRET)?;
    let bundle = files::read(&config.certificate(Authority::Server.row().stem))?.unwrap_or_default();
    let hash = ca_hash(&bundle);
    files.write_replaceable(&token_path, format!("{}\n", full(&hash, "server", &server)).as_bytes(), SECRET)?;
    files.link_to(&config.server_dir.join("node-token"), &token_path)?;
    let agent_path = config.server_dir.join("agent-token");
    if agent == server {
        files.link_to(&agent_path, &token_path)
    } else {
        files.write_replaceable(&agent_path, format!("{}\n", full(&hash, "node", &agent)).as_bytes(), SECRET)
    }
}

fn password_in(path: &Path) -> Option<String> {
    let text = files::read(path).ok().flatten()?;
    let token = Token::parse(String::from_utf8_lossy(&text).trim()).ok()?;
    token.password().ok().map(str::to_owned)
}
