//! Round trips through an `Address` beside bare ractor calls, and restarts. `cargo bench -p k3sd-runtime --bench calls`.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use k3sd_runtime::{Clock, Spec, Strategy, System, worker};

mod common;
use common::{Echo, EchoMsg, LIMIT, PeerEcho, one_restart, runtime};

fn calls(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("call");
    let system = System::new(Clock::system());
    let (tree, echo) = runtime.block_on(async {
        let tree = system.start(Spec::new(Strategy::OneForOne).child(worker::<Echo>("echo", ())));
        tree.ready().await.expect("the tree starts");
        (tree, system.address::<EchoMsg>("echo").expect("the type fits"))
    });
    group.bench_function("address", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { echo.call(LIMIT, |reply| EchoMsg::Echo { value: 1, reply }).await.expect("it answers") });
    });
    let peer = runtime.block_on(async { PeerEcho::start().await });
    group.bench_function("ractor", |bencher| {
        bencher.to_async(&runtime).iter(|| async { peer.echo(1).await });
    });
    group.finish();
    tree.stop();
}

fn restarts(criterion: &mut Criterion) {
    let runtime = runtime();
    criterion.bench_function("restart/death to ready", |bencher| {
        bencher.to_async(&runtime).iter_custom(|times| async move {
            let system = System::new(Clock::system());
            let (tree, echo) = common::restartable(&system).await;
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let began = Instant::now();
                one_restart(&system, &echo).await;
                total += began.elapsed();
            }
            tree.stop();
            tree.ended().await;
            total
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = calls, restarts
}
criterion_main!(benches);
