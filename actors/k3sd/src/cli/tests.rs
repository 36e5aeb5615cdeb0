use std::time::SystemTime;

use super::*;

fn environment(argv0: &str, args: &[&str]) -> Environment {
    let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
    environment.argv0 = argv0.to_owned();
    environment.args = args.iter().map(OsString::from).collect();
    environment
}

fn parse_args(args: &[&str]) -> Result<Invocation, String> {
    parse(&environment("k3sd", args)).map_err(|error| error.to_string())
}

/// `name=value` for each flag of `server` or `agent`.
fn flags(args: &[&str]) -> Vec<String> {
    match parse_args(args) {
        Ok(Invocation::Run { command_line, .. }) => {
            command_line.iter().map(|Occurrence { flag, text }| format!("{}={text}", flag.name)).collect()
        }
        other => panic!("{args:?}: {other:?}"),
    }
}

fn printed(args: &[&str]) -> String {
    match parse_args(args) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn switches_take_their_value_after_an_equals_sign() {
    let rows: [(&[&str], &[&str]); 7] = [
        (&["server", "--debug"], &["debug=true"]),
        (&["server", "--debug=false"], &["debug=false"]),
        (&["server", "--debug=T", "--debug=0"], &["debug=T", "debug=0"]),
        (&["server", "-debug"], &["debug=true"]),
        (&["server", "--debug="], &["debug="]),
        (&["server", "--tls-san-security=false"], &["tls-san-security=false"]),
        (&["server", "--print-config=json"], &["print-config=json"]),
    ];
    for (args, expected) in rows {
        assert_eq!(flags(args), expected, "{args:?}");
    }
    let error = parse_args(&["server", "--debug", "false"]).unwrap_err();
    assert!(error.contains("'false'") && error.contains("--debug=false"), "{error}");
}

#[test]
fn values_are_whatever_comes_next() {
    let rows: [(&[&str], &[&str]); 9] = [
        (&["server", "--data-dir", "/x"], &["data-dir=/x"]),
        (&["server", "--data-dir=/x"], &["data-dir=/x"]),
        (&["server", "-d", "/x"], &["data-dir=/x"]),
        (&["server", "-d=/x"], &["data-dir=/x"]),
        (&["server", "-v", "3"], &["v=3"]),
        (&["server", "--v=3"], &["v=3"]),
        (&["server", "--kubelet-arg", "-v=5"], &["kubelet-arg=-v=5"]),
        (&["server", "--token", "a=b,c"], &["token=a=b,c"]),
        (&["server", "--etcd-s3-folder", ""], &["etcd-s3-folder="]),
    ];
    for (args, expected) in rows {
        assert_eq!(flags(args), expected, "{args:?}");
    }
    assert!(parse_args(&["server", "--data-dir"]).is_err());
}

#[test]
fn lists_repeat_and_keep_their_commas() {
    let args = ["server", "--tls-san", "a,b", "--disable=x", "--tls-san=c", "--kube-controller-arg", "k=v"];
    assert_eq!(flags(&args), ["tls-san=a,b", "tls-san=c", "kube-controller-manager-arg=k=v", "disable=x"]);
}

#[test]
fn flags_before_the_sub_command_come_first() {
    let args = ["--debug", "-data-dir", "/a", "server", "--data-dir", "/b"];
    assert_eq!(flags(&args), ["debug=true", "data-dir=/a", "data-dir=/b"]);
    assert_eq!(flags(&["--debug=false", "agent"]), ["debug=false"]);
}

#[test]
fn mistakes_are_one_line_that_says_where_to_look() {
    let rows: [(&[&str], &str); 8] = [
        (&["server", "--flanel-backend=none"], "--flannel-backend"),
        (&["agent", "--cluster-cidr=10.0.0.0/8"], "see `k3sd agent --help`"),
        (&["server", "extra"], "extra"),
        (&["sevrer"], "see `k3sd --help`"),
        (&["token", "create", "--ttk", "1h"], "see `k3sd token create --help`"),
        (&["token", "delete"], "<TOKEN>"),
        (&["certificate", "rotate-ca"], "--path"),
        (&["completion", "fish"], "bash"),
    ];
    for (args, part) in rows {
        let error = parse_args(args).unwrap_err();
        assert!(error.contains(part) && !error.contains('\n') && !error.starts_with("error"), "{args:?}: {error}");
    }
}

#[test]
fn removed_flags_name_their_successor() {
    let rows: [(&[&str], &str); 4] = [
        (&["server", "--no-deploy", "traefik"], "--no-deploy was removed; use --disable with the same names"),
        (&["agent", "--no-flannel"], "--no-flannel was removed; use --flannel-backend=none"),
        (&["server", "--cluster-secret=hush"], "--cluster-secret was removed; use --token"),
        (&["server", "-disable-selinux"], "--disable-selinux was removed; leave it out"),
    ];
    for (args, start) in rows {
        let error = parse_args(args).unwrap_err();
        assert!(error.starts_with(start) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn every_command_of_k3s_is_understood() {
    let commands = [
        "token create abcdef.0123456789abcdef --ttl 1h --description d --groups g --usages signing",
        "token delete abcdef ghijkl --kubeconfig /k",
        "token list -o json",
        "token rotate -t old --new-token new -s https://s:6443 -d /data",
        "certificate check -s kubelet --output table --data-dir /d",
        "certificate rotate --service admin,etcd -s kubelet",
        "certificate rotate-ca --path /p --force --server https://s",
        "secrets-encrypt status -o json --token t",
        "secrets-encrypt enable",
        "secrets-encrypt disable --server https://s",
        "secrets-encrypt prepare -f",
        "secrets-encrypt rotate --force",
        "secrets-encrypt reencrypt --force --skip",
        "secrets-encrypt rotate-keys",
        "etcd-snapshot save --name n --s3 --s3-bucket b --etcd-s3-region r --snapshot-compress --node-name n",
        "etcd-snapshot delete one two --etcd-token t --dir /d",
        "etcd-snapshot ls -o yaml",
        "etcd-snapshot list",
        "etcd-snapshot l --etcd-server https://s --etcd-snapshot-dir /d",
        "etcd-snapshot prune --snapshot-retention 3 --s3-timeout 1m --s3-skip-ssl-verify=false",
    ];
    for command in commands {
        let args: Vec<&str> = command.split(' ').collect();
        match parse_args(&args) {
            Ok(Invocation::Unavailable { command: named, feature }) => {
                assert!(command.starts_with(&named) || named == "etcd-snapshot ls", "{command}: {named}");
                assert!(!feature.exists());
            }
            other => panic!("{command}: {other:?}"),
        }
    }
}

#[test]
fn commands_that_work_today() {
    let completion = |shell, install| Invocation::Completion { shell, install };
    let rows: [(&[&str], Invocation); 7] = [
        (&["completion", "bash"], completion(CompletionShell::Bash, false)),
        (&["completion", "zsh", "-i"], completion(CompletionShell::Zsh, true)),
        (&["completion", "-i=false", "zsh"], completion(CompletionShell::Zsh, false)),
        (&["token", "generate"], Invocation::TokenGenerate),
        (&["check-config"], Invocation::CheckConfig { file: None }),
        (&["check-config", "config"], Invocation::CheckConfig { file: Some("/config".into()) }),
        (&["server"], Invocation::Run { role: Role::Server, command_line: vec![] }),
    ];
    for (args, expected) in rows {
        assert_eq!(parse_args(args), Ok(expected), "{args:?}");
    }
}

#[test]
fn tools_get_their_arguments_untouched() {
    let external = |tool, args: &[&str], data_dir: Option<&str>| Invocation::External {
        tool,
        args: args.iter().map(OsString::from).collect(),
        data_dir: data_dir.map(str::to_owned),
    };
    let rows: [(&[&str], Invocation); 5] = [
        (&["kubectl", "get", "-A", "--help"], external(Tool::Kubectl, &["get", "-A", "--help"], None)),
        (&["-d", "/x", "--debug", "crictl", "ps"], external(Tool::Crictl, &["ps"], Some("/x"))),
        (&["--data-dir=/x", "ctr"], external(Tool::Ctr, &[], Some("/x"))),
        (&["kubectl", "kubectl", "server"], external(Tool::Kubectl, &["kubectl", "server"], None)),
        (&["-d", "kubectl", "ctr", "-v"], external(Tool::Ctr, &["-v"], Some("kubectl"))),
    ];
    for (args, expected) in rows {
        assert_eq!(parse_args(args), Ok(expected), "{args:?}");
    }
    // A tool's name as a value or behind another command means nothing.
    assert_eq!(flags(&["server", "--node-name", "kubectl"]), ["node-name=kubectl"]);
    assert!(parse_args(&["completion", "kubectl"]).is_err());
    assert!(printed(&["help", "kubectl"]).contains("Run kubectl against this cluster"));
}

#[test]
fn the_name_decides() {
    let invocation = |argv0: &str, args: &[&str]| parse(&environment(argv0, args)).unwrap();
    let args = vec![OsString::from("get"), OsString::from("--version")];
    let kubectl = Invocation::External { tool: Tool::Kubectl, args, data_dir: None };
    assert_eq!(invocation("/usr/bin/kubectl", &["get", "--version"]), kubectl);
    let server = invocation("k3s-server", &["--debug"]);
    assert!(matches!(&server, Invocation::Run { role: Role::Server, command_line } if command_line.len() == 1));
    assert_eq!(invocation("k3s-token", &["generate"]), Invocation::TokenGenerate);
    let Invocation::Print(help) = invocation("k3s", &["server", "--help"]) else { panic!("no help") };
    assert!(help.contains("Usage: k3s server"), "{help}");
    let Invocation::Print(version) = invocation("/opt/k3s", &["-v"]) else { panic!("no version") };
    assert!(version.starts_with("k3s version v1.34"), "{version}");
}

#[test]
fn versions_have_two_lines() {
    let rows: [&[&str]; 6] = [
        &["--version"],
        &["-v"],
        &["-version"],
        &["--debug", "--version"],
        &["server", "--version"],
        &["agent", "--version", "--server", "x"],
    ];
    for args in rows {
        let version = printed(args);
        let lines: Vec<&str> = version.lines().collect();
        assert_eq!(lines.len(), 2, "{version}");
        assert!(lines[0].starts_with("k3sd version v1.34.") && lines[0].ends_with(')'), "{version}");
        assert!(lines[1].starts_with("rustc version 1."), "{version}");
    }
}

#[test]
fn help_is_there_for_every_command_on_the_way() {
    fn check(command: &Command, path: &[&str]) {
        if Tool::named(command.get_name()).is_some() || command.get_name() == "help" {
            return;
        }
        let spellings: [&[&str]; 2] = [&[path, &["--help"]].concat(), &[path, &["-h"]].concat()];
        for args in spellings {
            let help = printed(args);
            assert!(
                help.contains(&format!("Usage: k3sd {}", path.join(" ")).trim_end().to_owned()),
                "{args:?}: {help}"
            );
            assert!(!help.contains("BOOL"), "{args:?}: {help}");
        }
        assert_eq!(printed(&[&["help"], path].concat()), printed(&[path, &["--help"]].concat()), "{path:?}");
        for sub_command in command.get_subcommands() {
            check(sub_command, &[path, &[sub_command.get_name()]].concat());
        }
    }
    check(&clap_command("k3sd"), &[]);
}

#[test]
fn help_follows_the_tables() {
    for role in [Role::Server, Role::Agent] {
        let help = printed(&[role.name(), "--help"]);
        for flag in role.flags() {
            let spelled = if flag.name.len() > 1 { format!("--{}", flag.name) } else { format!("-{} ", flag.name) };
            let shown = help.split_whitespace().any(|word| word == spelled.trim());
            assert_eq!(shown, !flag.hidden, "{spelled} in {}", role.name());
        }
        for part in ["Cluster:", "Logging:", "k3sd:", "[env: K3S_TOKEN]", "[default: overlayfs]"] {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(!help.contains("no-deploy") && !help.contains("[default: false]"));
    }
}

#[test]
fn nothing_at_all_prints_help() {
    for args in [&[][..], &["token"], &["etcd-snapshot"], &["actors"], &["completion"]] {
        assert!(printed(args).contains("Usage: k3sd"), "{args:?}");
    }
}

#[test]
fn arguments_must_be_text_only_where_we_read_them() {
    use std::os::unix::ffi::OsStringExt as _;
    let broken = || OsString::from_vec(vec![b'a', 0xff]);
    let mut environment = environment("k3sd", &["server"]);
    environment.args.push(broken());
    assert!(parse(&environment).unwrap_err().to_string().contains("not UTF-8"));
    environment.args[0] = "kubectl".into();
    assert!(matches!(parse(&environment), Ok(Invocation::External { args, .. }) if args == [broken()]));
}
