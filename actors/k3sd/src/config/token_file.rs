//! Secrets that are in files: the file is read once, at start, and its text is what the flag itself would have been.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::config::error::ConfigError;
use crate::config::model::{RoleConfig, RunConfig, Secret};
use crate::config::settings::Settings;

/// Longest file that is read; a token has some hundred characters.
const BYTES_MAX: u64 = 64 * 1024;

/// Reads the files that are named, wherever the secret itself was not given: it wins, and then the file need not exist.
pub(crate) fn read_all(config: &mut RunConfig, settings: &Settings) -> Result<(), ConfigError> {
    let fill = |name: &str, secret: &mut Option<Secret>, path: Option<&Path>| {
        if let (None, Some(path)) = (&*secret, path) {
            *secret = Some(read(path).map_err(|problem| settings.refuse(name, problem))?);
        }
        Ok(())
    };
    let node = match &mut config.role {
        RoleConfig::Server(server) => {
            let join = &mut server.join;
            fill("token-file", &mut join.token, join.token_file.as_deref())?;
            fill("agent-token-file", &mut join.agent_token, join.agent_token_file.as_deref())?;
            server.node.as_mut()
        }
        RoleConfig::Agent(agent) => {
            fill("token-file", &mut agent.token, agent.token_file.as_deref())?;
            Some(&mut agent.node)
        }
    };
    node.map_or(Ok(()), |node| fill("vpn-auth-file", &mut node.vpn_auth, node.vpn_auth_file.as_deref()))
}

/// The secret, or what is wrong with the file. White space around it is an editor's, not a part of it.
fn read(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let bytes = bytes(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("the file {shown} does not exist; create it, or correct the path"),
        _ => format!("the file {shown} can't be read: {error}; check its type and permissions"),
    })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("the file {shown} is longer than {BYTES_MAX} bytes; check that it holds a token"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| format!("the file {shown} is not UTF-8 text; write the token anew"))?;
    match text.trim() {
        "" => Err(format!("the file {shown} is empty; write the token into it")),
        token if token.contains(char::is_whitespace) || token.contains(char::is_control) => {
            Err(format!("the file {shown} holds more than one word; leave nothing but the token in it"))
        }
        token => Ok(Secret::new(token.to_owned())),
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is taken tells that there are too many.
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("token");
        fs::write(&path, bytes).expect("a file");
        let secret = read(&path).map_err(|problem| problem.replace(&path.display().to_string(), "FILE"));
        secret.map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_secret_is_what_stands_between_the_white_space() {
        for text in ["K10abc::server:def", "K10abc::server:def\n", "  K10abc::server:def\r\n\n"] {
            assert_eq!(read_bytes(text.as_bytes()).as_deref(), Ok("K10abc::server:def"), "{text:?}");
        }
    }

    #[test]
    fn files_without_a_secret_are_refused_without_what_is_in_them() {
        let long = "h".repeat(65 * 1024);
        let rows: [(&[u8], &str); 5] = [
            (b"", "the file FILE is empty; "),
            (b" \n", "the file FILE is empty; "),
            (b"hush\nhush", "the file FILE holds more than one word; "),
            (b"hush\xff", "the file FILE is not UTF-8 text; "),
            (long.as_bytes(), "the file FILE is longer than 65536 bytes; "),
        ];
        for (bytes, start) in rows {
            let problem = read_bytes(bytes).expect_err(start);
            assert!(problem.starts_with(start) && !problem.contains("hush"), "{problem}");
        }
        assert!(
            read(Path::new("/nowhere/token")).expect_err("it is absent").contains("/nowhere/token does not exist; ")
        );
        assert!(read(Path::new("/")).expect_err("it is a directory").contains("/ can't be read: "));
    }
}
