//! All commands as clap knows them. `server` and `agent` come from the flag tables; the rest is written out here.

use clap::{Arg, ArgAction, Command};

use crate::cli::actors;
pub(crate) use crate::cli::arguments::Purpose;
use crate::cli::arguments::{arg, role_command, switch, value};
use crate::cli::feature::Feature;
use crate::cli::flags::Role;
use crate::cli::kine;
use crate::cli::program::Tool;

/// The URL administrative commands talk to unless told otherwise.
const LOCAL_SERVER: &str = "https://127.0.0.1:6443";

/// The whole command line.
pub(crate) fn root(program: &'static str, purpose: Purpose) -> Command {
    let global = |name| arg(Role::Server.flag(name).expect("the flag is in the table"), purpose).help_heading(None);
    Command::new(program)
        .about("Kubernetes in one process, as K3s does it, built from supervised actors")
        .arg_required_else_help(true)
        .subcommand_required(true)
        .arg(global("debug"))
        .arg(global("data-dir"))
        .arg(Arg::new("version").long("version").short('v').action(ArgAction::SetTrue).help("Print the version"))
        .subcommand(role_command(Role::Server, purpose))
        .subcommand(role_command(Role::Agent, purpose))
        .subcommands(Tool::ALL.map(tool))
        .subcommand(check_config())
        .subcommand(token(purpose))
        .subcommand(etcd_snapshot(purpose))
        .subcommand(secrets_encrypt(purpose))
        .subcommand(certificate(purpose))
        .subcommand(completion(purpose))
        .subcommand(actors::command())
        .subcommand(kine::command())
}

/// The part of the program that a command other than the long-running ones needs, or nothing if it works without.
pub(crate) fn needs(command: &str, sub_command: Option<&str>) -> Option<Feature> {
    match (command, sub_command) {
        ("token", Some("generate")) => None,
        ("token", _) => Some(Feature::Join),
        ("etcd-snapshot", _) => Some(Feature::EtcdSnapshots),
        ("secrets-encrypt", _) => Some(Feature::SecretsEncryption),
        ("certificate", _) => Some(Feature::CertificateCommands),
        _ => None,
    }
}

fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).arg_required_else_help(true).subcommand_required(true)
}

fn long(id: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    value(id, value_name).long(id).help(help)
}

fn tool(tool: Tool) -> Command {
    let about = match tool {
        Tool::Kubectl => "Run kubectl against this cluster",
        Tool::Crictl => "Run crictl against this node's container runtime",
        Tool::Ctr => "Run ctr against this node's containerd",
    };
    let args = Arg::new("args").value_name("ARGS").action(ArgAction::Append).num_args(0..);
    Command::new(tool.name()).about(about).arg(args.trailing_var_arg(true).allow_hyphen_values(true))
}

fn check_config() -> Command {
    let file = Arg::new("file").value_name("FILE").help("Kernel configuration [default: that of the running kernel]");
    Command::new("check-config").about("Check whether the kernel has what containers and networks need").arg(file)
}

fn completion(purpose: Purpose) -> Command {
    let shell = Arg::new("shell").required(true).value_parser(["bash", "zsh"]).help("The shell");
    Command::new("completion")
        .about("Print a script that completes commands and flags in a shell")
        .arg_required_else_help(true)
        .arg(shell)
        .arg(switch("i", purpose).short('i').help("Load it from the shell's start file instead of printing it"))
}

/// What the commands that read the data directory share.
fn data_dir(command: Command, purpose: Purpose) -> Command {
    let flag = |name| arg(Role::Server.flag(name).expect("the flag is in the table"), purpose).help_heading(None);
    command.arg(flag("data-dir")).arg(flag("debug").hide(true)).arg(flag("config").hide(true))
}

/// What the commands that call a server share.
fn server(command: Command, purpose: Purpose) -> Command {
    let server = long("server", "URL", "Server to ask [env: K3S_URL]").short('s').default_value(LOCAL_SERVER);
    let token = long("token", "TOKEN", "Token to authenticate with [env: K3S_TOKEN]").short('t');
    data_dir(command, purpose).arg(token).arg(server)
}

fn output(words: [&'static str; 3], default: &'static str) -> Arg {
    let words: Vec<&'static str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    Arg::new("output").long("output").short('o').value_parser(words).default_value(default).help("How to print")
}

fn token(purpose: Purpose) -> Command {
    let kubeconfig = || long("kubeconfig", "FILE", "Kubeconfig of the cluster [env: KUBECONFIG]");
    let sub = |name, about| data_dir(Command::new(name).about(about), purpose);
    let create = sub("create", "Create a token with which nodes can join")
        .arg(kubeconfig())
        .arg(Arg::new("new").value_name("TOKEN").help("The token, made up when left out"))
        .arg(long("description", "TEXT", "What the token is for"))
        .arg(
            long("groups", "GROUP", "Further groups of its bearer; repeat for more")
                .default_value("system:bootstrappers:k3s:default-node-token"),
        )
        .arg(long("ttl", "DURATION", "How long it is good for, 0 for ever").default_value("24h0m0s"))
        .arg(
            long("usages", "USAGE", "What it can be used for; repeat for more").default_value("signing,authentication"),
        );
    let delete = sub("delete", "Delete tokens")
        .arg(kubeconfig())
        .arg(Arg::new("tokens").value_name("TOKEN").num_args(1..).required(true).help("A token or its id"));
    let list = sub("list", "List tokens").arg(kubeconfig()).arg(output(["text", "json", "yaml"], "text"));
    let rotate = server(Command::new("rotate").about("Replace the server token"), purpose).arg(long(
        "new-token",
        "TOKEN",
        "The new token, made up when left out",
    ));
    group("token", "Manage tokens with which nodes join")
        .subcommand(create)
        .subcommand(delete)
        .subcommand(sub("generate", "Print a random token, without creating it"))
        .subcommand(list)
        .subcommand(rotate)
}

fn certificate(purpose: Purpose) -> Command {
    let services = || {
        long("service", "SERVICE", "Look at the certificates of this service only; repeat or separate by commas")
            .short('s')
    };
    let output = Arg::new("output")
        .long("output")
        .short('o')
        .value_parser(["text", "table", "json", "yaml"])
        .default_value("text")
        .help("How to print");
    let sub = |name, about| data_dir(Command::new(name).about(about), purpose);
    let rotate_ca = server(Command::new("rotate-ca").about("Replace the certificate authorities"), purpose)
        .arg(long("path", "DIRECTORY", "Directory with the new certificates and keys").required(true))
        .arg(switch("force", purpose).long("force").short('f').help("Skip the checks of the new certificates"));
    group("certificate", "Check and replace certificates")
        .subcommand(sub("check", "Show when certificates expire").arg(services()).arg(output))
        .subcommand(sub("rotate", "Remove certificates, so that the next start makes new ones").arg(services()))
        .subcommand(rotate_ca)
}

fn secrets_encrypt(purpose: Purpose) -> Command {
    let sub = |name, about| server(Command::new(name).about(about), purpose);
    let force =
        || switch("force", purpose).long("force").short('f').help("Do it even if the state does not call for it");
    let skip = switch("skip", purpose).long("skip").help("Leave the existing secrets as they are");
    group("secrets-encrypt", "Manage the encryption of secrets")
        .subcommand(sub("status", "Show the state of encryption").arg(output(["text", "json", ""], "text")))
        .subcommand(sub("enable", "Turn encryption on"))
        .subcommand(sub("disable", "Turn encryption off"))
        .subcommand(sub("prepare", "Add a new key").arg(force()))
        .subcommand(sub("rotate", "Start using the new key").arg(force()))
        .subcommand(sub("reencrypt", "Encrypt existing secrets with the new key").arg(force()).arg(skip))
        .subcommand(sub("rotate-keys", "Add a key, use it and encrypt existing secrets with it, in one go"))
}

/// The names of the S3 flags without the prefix that `server` has on them; the prefixed ones are accepted as well.
fn s3_args(purpose: Purpose) -> impl Iterator<Item = Arg> {
    let flags = Role::Server.flags().filter(|flag| flag.name.starts_with("etcd-s3"));
    flags.map(move |flag| {
        let name = flag.name.strip_prefix("etcd-").expect("the filter above");
        arg(flag, purpose).long(name).aliases([flag.name]).help_heading("S3")
    })
}

fn etcd_snapshot(purpose: Purpose) -> Command {
    let sub = |name, about| {
        data_dir(Command::new(name).about(about), purpose)
            .arg(long("node-name", "NAME", "Name of this node [env: K3S_NODE_NAME]"))
            .arg(
                long("etcd-token", "TOKEN", "Token to authenticate with [env: K3S_TOKEN]")
                    .short('t')
                    .aliases(["token"]),
            )
            .arg(
                long("etcd-server", "URL", "Server to ask [env: K3S_URL]")
                    .short('s')
                    .aliases(["server"])
                    .default_value(LOCAL_SERVER),
            )
            .arg(
                long("dir", "DIRECTORY", "Directory of snapshots [default: server/db/snapshots in the data directory]")
                    .aliases(["etcd-snapshot-dir"]),
            )
            .arg(long("name", "NAME", "First part of the snapshot's name").default_value("on-demand"))
            .arg(
                switch("snapshot-compress", purpose)
                    .long("snapshot-compress")
                    .aliases(["etcd-snapshot-compress"])
                    .help("Compress the snapshot"),
            )
            .arg(
                long("snapshot-retention", "NUMBER", "How many local snapshots to keep")
                    .aliases(["etcd-snapshot-retention"])
                    .default_value("5"),
            )
            .args(s3_args(purpose))
    };
    let names = Arg::new("names").value_name("SNAPSHOT").num_args(1..).required(true).help("Name of a snapshot");
    let list = sub("ls", "List snapshots").visible_alias("list").visible_alias("l");
    group("etcd-snapshot", "Manage snapshots of the embedded etcd")
        .subcommand(sub("save", "Take a snapshot now"))
        .subcommand(sub("delete", "Delete snapshots").arg(names))
        .subcommand(list.arg(output(["table", "json", "yaml"], "table")))
        .subcommand(sub("prune", "Delete the snapshots beyond the number to keep"))
}
