//! Running a program: the question goes in as JSON, the answer comes out as JSON.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use k3sd_client::arguments::go_duration;
use k3sd_runtime::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::cache::Account;
use super::config::Provider;
use crate::images::Auths;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of complaints that are told.
const ERROR_BYTES_MAX: u64 = 1024;

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    api_version: String,
    kind: String,
    cache_key_type: CacheKeyType,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
}

/// What a program said.
pub(super) struct Answer {
    pub(super) scope: CacheKeyType,
    /// How long it holds, if it says so.
    pub(super) keeps: Option<Duration>,
    pub(super) auths: Auths,
}

/// The question.
pub(super) fn request(api_version: &str, image: &str, token: Option<&str>, account: Option<&Account>) -> Value {
    let mut made = json!({"kind": "CredentialProviderRequest", "apiVersion": api_version, "image": image});
    if let Some(token) = token {
        made["serviceAccountToken"] = json!(token);
    }
    if let Some(account) = account.filter(|account| !account.annotations.is_empty()) {
        made["serviceAccountAnnotations"] = json!(account.annotations);
    }
    made
}

/// Reads an answer. What is wrong with it is not shown: it may hold passwords.
pub(super) fn answer(api_version: &str, said: &[u8]) -> Result<Answer, String> {
    let unreadable = |_| "error decoding credential provider plugin response from stdout".to_owned();
    let read: Response = serde_json::from_slice(said).map_err(unreadable)?;
    if read.api_version != api_version {
        return Err(format!(
            "apiVersion from credential plugin response did not match expected apiVersion:{api_version}, actual apiVersion:{}",
            read.api_version
        ));
    }
    if read.kind != "CredentialProviderResponse" {
        return Err(format!("failed to decode CredentialProviderResponse, unexpected Kind: {:?}", read.kind));
    }
    let keeps = match read.cache_duration {
        None => None,
        Some(text) => Some(go_duration(&text).ok_or_else(|| format!("cacheDuration {text:?} is no time"))?),
    };
    let auths = read.auth.unwrap_or_default().into_iter();
    let auths = auths.map(|(pattern, login)| (pattern, (login.username, login.password))).collect();
    Ok(Answer { scope: read.cache_key_type, keeps, auths })
}

/// Runs a program with a question, and returns what it wrote. It is killed when it takes too long or nobody waits for it.
pub(super) async fn run(provider: &Provider, request: &Value, clock: &Clock) -> Result<Vec<u8>, String> {
    let mut command = Command::new(&provider.program);
    command.args(&provider.args).envs(provider.env.iter().map(|one| (&one.name, &one.value))).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("it can't be started: {error}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let text = request.to_string();
    let talk = async {
        let ask = async {
            if let Some(mut stdin) = stdin {
                // One that doesn't read may still answer.
                stdin.write_all(text.as_bytes()).await.ok();
            }
        };
        let ((), said, complaint, ended) =
            tokio::join!(ask, all(stdout, ANSWER_BYTES_MAX), all(stderr, ERROR_BYTES_MAX), child.wait());
        let ended = ended.map_err(|error| error.to_string())?;
        if ended.success() {
            return Ok(said);
        }
        Err(format!("it ended with {ended}: {}", String::from_utf8_lossy(&complaint).trim()))
    };
    tokio::select! {
        said = talk => said,
        () = clock.sleep_until(clock.now() + LIMIT) => Err(format!("it took longer than {LIMIT:?}")),
    }
}

/// Reads to the end; what is more than so much is read and forgotten.
async fn all(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut found = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(bytes_max).read_to_end(&mut found).await.ok();
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn answers_are_checked() {
        let with = |rest: &str| {
            let text = format!("{{\"apiVersion\": {V1:?}, \"kind\": \"CredentialProviderResponse\", {rest}}}");
            answer(V1, text.as_bytes()).map(|answer| (answer.scope, answer.keeps, answer.auths.len()))
        };
        let full = "\"cacheKeyType\": \"Registry\", \"cacheDuration\": \"1h\", \"auth\": {\"r.io\": {\"username\": \"u\", \"password\": \"p\"}}";
        assert_eq!(with(full), Ok((CacheKeyType::Registry, Some(Duration::from_secs(3600)), 1)));
        assert_eq!(with("\"cacheKeyType\": \"Global\""), Ok((CacheKeyType::Global, None, 0)));
        assert!(
            with("\"cacheKeyType\": \"Other\", \"auth\": {\"r.io\": {\"password\": \"secret\"}}")
                .is_err_and(|text| !text.contains("secret"))
        );
        assert!(with("\"cacheKeyType\": \"Image\", \"cacheDuration\": \"long\"").is_err());
        let other = "{\"apiVersion\": \"v2\", \"kind\": \"CredentialProviderResponse\", \"cacheKeyType\": \"Image\"}";
        assert!(answer(V1, other.as_bytes()).is_err_and(|text| text.contains("did not match expected")));
    }

    #[test]
    fn questions_say_for_whom() {
        assert_eq!(
            request(V1, "r.io/a", None, None),
            json!({"kind": "CredentialProviderRequest", "apiVersion": V1, "image": "r.io/a"})
        );
        let account = Account {
            namespace: "n".into(),
            name: "a".into(),
            uid: "u".into(),
            pod: None,
            annotations: [("k".to_owned(), "v".to_owned())].into(),
        };
        let asked = request(V1, "r.io/a", Some("t"), Some(&account));
        assert_eq!(
            (&asked["serviceAccountToken"], &asked["serviceAccountAnnotations"]["k"]),
            (&json!("t"), &json!("v"))
        );
    }

    #[tokio::test]
    async fn programs_are_run() {
        let place = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("echo", "cat; echo \"$1 $WORD\"", Ok("{\"a\":1}one two\n")),
            ("deaf", "echo hi", Ok("hi\n")),
            ("bad", "echo no >&2; exit 3", Err("it ended with exit status: 3: no")),
        ] {
            let program = place.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let provider: Provider = serde_json::from_value(json!({
                "name": name, "apiVersion": V1, "matchImages": ["r.io"], "defaultCacheDuration": "1s",
                "args": ["one"], "env": [{"name": "WORD", "value": "two"}],
            }))
            .unwrap();
            let provider = Provider { program, ..provider };
            let said = run(&provider, &json!({"a": 1}), &Clock::system()).await;
            let said = said.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(said, expected.map(str::to_owned).map_err(str::to_owned), "{name}");
        }
    }
}
