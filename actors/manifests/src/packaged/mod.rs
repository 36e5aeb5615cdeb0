//! The packaged files that belong to no other part: rights, and the classes of runtimes.

use crate::config::Packaged;

const CCM: &str = include_str!("ccm.yaml");
const ROLE_BINDINGS: &str = include_str!("rolebindings.yaml");

/// Runtimes that containerd is set up for when they are installed; each has a class of its name.
const RUNTIMES: [&str; 10] =
    ["nvidia", "nvidia-experimental", "crun", "lunatic", "slight", "spin", "wws", "wasmedge", "wasmer", "wasmtime"];

/// `ccm.yaml`, `rolebindings.yaml` and `runtimes.yaml`.
pub fn own_files() -> Vec<Packaged> {
    let file = |path: &str, text: String| Packaged { path: path.to_owned(), text };
    vec![
        file("ccm.yaml", CCM.to_owned()),
        file("rolebindings.yaml", ROLE_BINDINGS.to_owned()),
        file("runtimes.yaml", runtimes()),
    ]
}

fn runtimes() -> String {
    let class = |name: &&str| {
        format!("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {name}\n")
    };
    let classes: Vec<String> = RUNTIMES.iter().map(class).collect();
    classes.join("---\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn every_file_holds_what_k3s_has_in_it() {
        let read = |path: &str| {
            let file = own_files().into_iter().find(|file| file.path == path).unwrap();
            let parsed = parse(file.text.as_bytes());
            assert!(parsed.broken.is_empty(), "{:?}", parsed.broken);
            let name = |object: &crate::parse::Manifest| format!("{}/{}", object.gvk.kind, object.key.name);
            parsed.objects.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(
            read("ccm.yaml"),
            [
                "ClusterRole/k3s-cloud-controller-manager",
                "ClusterRoleBinding/k3s-cloud-controller-manager",
                "ClusterRoleBinding/k3s-cloud-controller-manager-auth-delegator",
                "RoleBinding/k3s-cloud-controller-manager-authentication-reader",
            ]
        );
        assert_eq!(
            read("rolebindings.yaml"),
            [
                "ClusterRoleBinding/kube-apiserver-kubelet-admin",
                "ClusterRole/system:k3s-controller",
                "ClusterRoleBinding/system:k3s-controller",
                "ClusterRole/clustercidrs-node",
                "ClusterRoleBinding/clustercidrs-node",
            ]
        );
        let classes = read("runtimes.yaml");
        assert_eq!(classes.len(), 10);
        assert_eq!(classes[2], "RuntimeClass/crun");
    }
}
