//! The real binary in a virtual machine, for what the machine that runs the tests may lack: systemd, cgroups v2, logind, and
//! the kernel's NFS and SCTP. `./test.sh --vm` makes that machine and names it in `K3SD_VM`; without it each test here says
//! that it was ignored.

mod cgroups;
mod guest;
mod install;
mod kubectl;
mod mute;
mod nfs;
mod sctp;
mod shutdown;

#[test]
fn systemd_installs_runs_and_removes_it() {
    install::install();
}

#[test]
fn limits_hold_with_cgroups_that_systemd_names() {
    cgroups::cgroups("systemd");
}

#[test]
fn limits_hold_with_cgroups_of_the_kubelets_own() {
    cgroups::cgroups("cgroupfs");
}

#[test]
fn a_systemd_that_says_nothing_holds_up_nobody_else() {
    mute::mute();
}

#[test]
fn pods_mount_nfs() {
    nfs::nfs();
}

#[test]
fn logind_lets_pods_end_before_the_machine() {
    shutdown::shutdown();
}

#[test]
fn services_carry_sctp() {
    sctp::sctp();
}
