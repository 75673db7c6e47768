//! The laws hold in a hundred worlds, and the same seed is the same world.

use maos_sim::{Report, run};

const STEPS: u64 = 400;

#[test]
fn the_laws_hold_whatever_goes_wrong() {
    let mut total = Report::default();
    for seed in 10_000..10_100 {
        match run(seed, STEPS) {
            Ok(report) => total.add(&report),
            Err(why) => panic!(
                "seed {seed}: {why}\nreplay: cargo run --release -p maos-sim -- --seed {seed}"
            ),
        }
    }
    // A world in which little happens shows little.
    assert!(total.crashes > 100, "{total:?}");
    assert!(total.completions > 1_000, "{total:?}");
    assert!(total.revivals > 50, "{total:?}");
    assert!(total.built_in > 200, "{total:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        assert_eq!(run(seed, STEPS), run(seed, STEPS));
    }
    assert_ne!(run(1, STEPS).map(|report| report.hash), run(2, STEPS).map(|report| report.hash));
}
