//! What `--version` prints.

/// The release: the version of the Kubernetes API it serves, and ours of that.
pub const VERSION: &str = "v1.34.0+k3sd1";
/// The commit it was built from, shortened; `unknown` when it was built outside a repository.
pub const COMMIT: &str = env!("K3SD_COMMIT");
/// The compiler it was built with.
pub const COMPILER: &str = env!("K3SD_RUSTC");

/// Two lines, as K3s prints them, with our compiler in the place of Go's.
#[must_use]
pub fn text(program: &str) -> String {
    format!("{program} version {VERSION} ({COMMIT})\nrustc version {COMPILER}\n")
}
