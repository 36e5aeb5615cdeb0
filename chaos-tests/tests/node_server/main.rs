//! The real binary with a node, on a machine of its own, looked at from outside: with `kubectl`, through the container
//! runtime's own interface, and in what the kernel shows.

mod application;
mod churn;
mod facts;
mod first_pod;
mod kills;
mod kubectl;
mod machine;
mod reboot;
mod scripts;
mod streams;
mod traces;
mod users;

/// One machine at a time: each has a whole cluster on it.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_becomes_a_node() {
    let _turn = TURN.lock().await;
    first_pod::first_pod().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outlive_what_runs_them() {
    let _turn = TURN.lock().await;
    kills::kills().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    churn::churn().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_fit() {
    let _turn = TURN.lock().await;
    churn::hundred().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_back_after_a_reboot() {
    let _turn = TURN.lock().await;
    reboot::reboot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_runs_and_outlives_the_daemon() {
    let _turn = TURN.lock().await;
    application::application().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_the_operator_make_volumes() {
    let _turn = TURN.lock().await;
    scripts::scripts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_may_have_users_of_their_own() {
    let _turn = TURN.lock().await;
    users::users().await;
}
